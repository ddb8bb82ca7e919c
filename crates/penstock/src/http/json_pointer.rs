//! One member of a JSON document, found without building the document (RFC 6901).
//!
//! `?key=/user/id` asks for the key of every line of an upload, so this is work per record: a scan from the front that
//! stops as soon as the member is found. What lies beside the path is stepped over by matching quotes and brackets, not
//! checked; what lies on the path, and the member itself, must be JSON. Nothing recurses, so no nesting is deep enough
//! to harm. Of members with the same name the first counts.

use std::fmt;

use memchr::memchr2;
use serde::de::IgnoredAny;

/// A parsed pointer with at least one reference token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonPointer {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    /// The member's name, unescaped.
    name: Box<str>,
    /// The element it means in an array, where it is written as one (RFC 6901 section 4).
    index: Option<usize>,
}

/// Why a text is not a pointer to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PointerError {
    /// It is empty, or does not begin with `/`.
    NoSlash,
    /// A `~` is not followed by `0` or `1`.
    Tilde,
}

impl fmt::Display for PointerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSlash => "a JSON pointer begins with \"/\"",
            Self::Tilde => "in a JSON pointer \"~\" is followed by \"0\" or \"1\"",
        })
    }
}

/// The document has no such member, or is not JSON where the path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotFound;

impl JsonPointer {
    /// Reads the string representation (RFC 6901 section 3).
    pub(crate) fn parse(text: &str) -> Result<Self, PointerError> {
        let tokens = text.strip_prefix('/').ok_or(PointerError::NoSlash)?;
        let tokens = tokens.split('/').map(Token::parse);
        Ok(Self { tokens: tokens.collect::<Result<_, _>>()? })
    }

    /// The member of `document`: a string's characters, else its JSON text, byte for byte. `scratch` is where the
    /// characters of a string with escapes are put together; its former content is dropped.
    pub(crate) fn find<'a>(&self, document: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], NotFound> {
        let mut scan = Scan { bytes: document, at: 0 };
        for token in &self.tokens {
            scan.whitespace();
            match scan.next().ok_or(NotFound)? {
                b'{' => scan.enter_member(&token.name, scratch)?,
                b'[' => scan.enter_element(token.index.ok_or(NotFound)?)?,
                _ => return Err(NotFound),
            }
        }
        scan.whitespace();
        let start = scan.at;
        if scan.peek() == Some(b'"') {
            scan.at += 1;
            let raw = scan.string()?;
            if !raw.escaped {
                return Ok(raw.bytes);
            }
            scratch.clear();
            unescape(raw.bytes, scratch)?;
            return Ok(scratch);
        }
        scan.value()?;
        let text = &document[start..scan.at];
        // A library judges what JSON is; its own bound on nesting holds.
        match serde_json::from_slice::<IgnoredAny>(text) {
            Ok(_) => Ok(text),
            Err(_) => Err(NotFound),
        }
    }
}

impl Token {
    fn parse(text: &str) -> Result<Self, PointerError> {
        let mut name = String::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            name.push(match character {
                '~' => match characters.next() {
                    Some('0') => '~',
                    Some('1') => '/',
                    _ => return Err(PointerError::Tilde),
                },
                other => other,
            });
        }
        let plain = name.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = name.len() > 1 && name.starts_with('0');
        let index = if plain && !leading_zero { name.parse().ok() } else { None };
        Ok(Self { name: name.into(), index })
    }
}

/// A string's bytes between its quotes.
struct RawString<'a> {
    bytes: &'a [u8],
    /// Whether it holds a backslash.
    escaped: bool,
}

/// A position in a document.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// After a `{`: goes to the value of the member `name`.
    fn enter_member(&mut self, name: &str, scratch: &mut Vec<u8>) -> Result<(), NotFound> {
        loop {
            self.whitespace();
            // A `}` in place of a name ends here as well: the object has no such member.
            if self.next() != Some(b'"') {
                return Err(NotFound);
            }
            let found = self.string()?;
            let same = if found.escaped {
                scratch.clear();
                unescape(found.bytes, scratch)?;
                scratch.as_slice() == name.as_bytes()
            } else {
                found.bytes == name.as_bytes()
            };
            self.whitespace();
            if self.next() != Some(b':') {
                return Err(NotFound);
            }
            if same {
                return Ok(());
            }
            self.value()?;
            self.whitespace();
            if self.next() != Some(b',') {
                return Err(NotFound);
            }
        }
    }

    /// After a `[`: goes to its element `index`.
    fn enter_element(&mut self, index: usize) -> Result<(), NotFound> {
        self.whitespace();
        if self.peek() == Some(b']') {
            return Err(NotFound);
        }
        for _ in 0..index {
            self.value()?;
            self.whitespace();
            if self.next() != Some(b',') {
                return Err(NotFound);
            }
        }
        Ok(())
    }

    /// After a `"`: goes behind the closing one.
    #[inline]
    fn string(&mut self) -> Result<RawString<'a>, NotFound> {
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.at..).ok_or(NotFound)?;
            let special = memchr2(b'"', b'\\', rest).ok_or(NotFound)?;
            self.at += special + 1;
            if rest[special] == b'"' {
                let bytes = &self.bytes[start..self.at - 1];
                return Ok(RawString { bytes, escaped });
            }
            escaped = true;
            self.at += 1;
        }
    }

    /// Goes behind a value, of which only quotes and brackets are looked at.
    fn value(&mut self) -> Result<(), NotFound> {
        self.whitespace();
        match self.next().ok_or(NotFound)? {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => {
                let mut depth = 1usize;
                while depth > 0 {
                    match self.next().ok_or(NotFound)? {
                        b'"' => {
                            self.string()?;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                }
            }
            b',' | b':' | b'}' | b']' => return Err(NotFound),
            _ => {
                while let Some(byte) = self.peek()
                    && !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n')
                {
                    self.at += 1;
                }
            }
        }
        Ok(())
    }
}

/// Appends the characters of a string's inside (RFC 8259 section 7). A lone surrogate is no character.
fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), NotFound> {
    let mut rest = raw;
    while let Some(backslash) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..backslash]);
        let (&kind, after) = rest[backslash + 1..].split_first().ok_or(NotFound)?;
        rest = after;
        out.push(match kind {
            b'"' | b'\\' | b'/' => kind,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = u32::from(code_unit(&mut rest)?);
                if (0xd800..0xdc00).contains(&unit) {
                    rest = rest.strip_prefix(b"\\u").ok_or(NotFound)?;
                    let low = u32::from(code_unit(&mut rest)?);
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(NotFound);
                    }
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                }
                let character = char::from_u32(unit).ok_or(NotFound)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return Err(NotFound),
        });
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// Takes the four hex digits of a `\u` escape.
fn code_unit(rest: &mut &[u8]) -> Result<u16, NotFound> {
    let (digits, after) = rest.split_at_checked(4).ok_or(NotFound)?;
    *rest = after;
    let mut unit = 0u16;
    for &digit in digits {
        let digit = char::from(digit).to_digit(16).ok_or(NotFound)?;
        unit = unit << 4 | u16::try_from(digit).map_err(|_| NotFound)?;
    }
    Ok(unit)
}

#[cfg(test)]
mod tests;
