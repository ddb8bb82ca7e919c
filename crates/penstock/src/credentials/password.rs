//! A user's name and the file with the password.

use std::{fs, io::Read, path::PathBuf};

use kafka_client::sasl::{Credentials, CredentialsError, Login, Obtaining, Secret};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

/// A file with more holds something else than a secret.
const MAX_BYTES: u64 = 64 * 1024;

/// A user's name, and the file with the password. Read at every login.
#[derive(Debug)]
pub struct PasswordFile {
    username: String,
    path: PathBuf,
}

impl PasswordFile {
    /// Reads nothing yet.
    pub fn new(username: String, path: PathBuf) -> Self {
        Self { username, path }
    }
}

impl Credentials<Login> for PasswordFile {
    fn credentials(&self) -> Obtaining<'_, Login> {
        Box::pin(async { Ok(Login { username: self.username.clone(), password: secret(self.path.clone()).await? }) })
    }
}

/// [`read_secret`] on a thread that may wait for a disk.
pub(super) async fn secret(path: PathBuf) -> Result<Secret, CredentialsError> {
    let read = spawn_blocking(move || read_secret(&path)).await;
    read.unwrap_or(Err("the runtime has ended".to_owned())).map_err(CredentialsError::from)
}

/// The text of a secret's file, without one line end at its end.
///
/// # Errors
///
/// Why there is none: the file cannot be read, is empty, too long, or not text.
pub fn read_secret(path: &std::path::Path) -> Result<Secret, String> {
    let wrong = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let file = fs::File::open(path).map_err(|error| wrong(&error))?;
    // Sized at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize + 1));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(&"is too long for a secret"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(&"is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(wrong(&"is empty"));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_changed_file_is_a_changed_password() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("password");
        let source = PasswordFile::new("u".to_owned(), path.clone());
        assert!(source.credentials().await.expect_err("no file").to_string().contains("password"));
        for (written, read) in [("one\n", "one"), ("two\r\n", "two"), ("three", "three"), (" 4 \n\n", " 4 \n")] {
            fs::write(&path, written).expect("written");
            let login = source.credentials().await.expect("a password");
            assert_eq!((login.username.as_str(), login.password.reveal()), ("u", read));
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("password");
        for (written, problem) in
            [(&b""[..], "is empty"), (b"\n", "is empty"), (b"hunter\xff", "UTF-8"), (&[b'x'; 70_000], "too long")]
        {
            fs::write(&path, written).expect("written");
            let error = read_secret(&path).expect_err("no secret");
            assert!(error.contains(problem) && !error.contains("hunter"), "{error}");
        }
    }
}
