//! Apache Kafka's jars and Apicurio Registry, fetched from Maven Central once and kept in a cache folder.
//!
//! The folder is `$PENSTOCK_TEST_CACHE`, else `penstock` beneath `$XDG_CACHE_HOME` or `~/.cache`. A lock file makes
//! parallel tests fetch once; a fetch goes into a folder of another name that is renamed when it is whole, so one that
//! was cut off leaves nothing that looks finished.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// What tests need from the system, as one command for Debian and its kin.
const INSTALL: &str = "apt-get install openjdk-17-jre-headless maven";

/// The versions of Apache Kafka the bridge is tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The current line, KRaft only.
    V4_1_1,
    /// The last line that also knew ZooKeeper; run with KRaft here.
    V3_9_2,
    /// A 2019 cluster with ZooKeeper, as still found behind managed services.
    V2_2_1,
}

impl Version {
    /// `group:artifact:version` of what goes on the class path.
    fn artifacts(self) -> &'static [&'static str] {
        match self {
            Self::V4_1_1 => &[
                "org.apache.kafka:kafka_2.13:4.1.1",
                "org.apache.kafka:kafka-tools:4.1.1",
                "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
            ],
            Self::V3_9_2 => &["org.apache.kafka:kafka_2.13:3.9.2", "org.slf4j:slf4j-simple:1.7.36"],
            // The ZooKeeper that 2.2.1 names (3.4.13) does not start on Java 17.
            Self::V2_2_1 => &[
                "org.apache.kafka:kafka_2.12:2.2.1",
                "org.apache.zookeeper:zookeeper:3.5.10",
                "log4j:log4j:1.2.17",
                "org.slf4j:slf4j-simple:1.7.25",
            ],
        }
    }

    /// The class path of this version, for `java -cp`; fetches it where the cache has none.
    ///
    /// Panics, with what to install, when Java or Maven is missing or the fetch fails.
    pub fn class_path(self) -> &'static str {
        static PATHS: [OnceLock<String>; 3] = [const { OnceLock::new() }; 3];
        PATHS[self as usize].get_or_init(|| {
            check_java();
            // Another list of artifacts is another folder.
            let name = format!("kafka-{self}-{:08x}", checksum(self.artifacts()));
            let fetched = fetched(&name, |scratch, libs| {
                fs::write(scratch.join("pom.xml"), pom(self)).expect("the cache folder can be written");
                vec!["dependency:copy-dependencies".to_owned(), format!("-DoutputDirectory={}", libs.display())]
            });
            format!("{}/*", fetched.display())
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4_1_1 => "4.1.1",
            Self::V3_9_2 => "3.9.2",
            Self::V2_2_1 => "2.2.1",
        })
    }
}

fn check_java() {
    let version = Command::new("java")
        .arg("-version")
        .output()
        .unwrap_or_else(|error| panic!("java cannot be run ({error}). Install it: {INSTALL}"));
    // openjdk version "17.0.15" 2025-04-15
    let text = String::from_utf8_lossy(&version.stderr).into_owned();
    let major = text.split('"').nth(1).and_then(|quoted| quoted.split('.').next()?.parse::<u32>().ok());
    assert!(major.is_some_and(|major| major >= 17), "Java 17 or newer is needed, not: {text}Install it: {INSTALL}");
}

/// The jar that starts Apicurio Registry, a Schema Registry that others wrote, which keeps its schemas in memory; fetches it
/// where the cache has none.
///
/// Panics, with what to install, when Java or Maven is missing or the fetch fails.
pub fn apicurio_registry() -> &'static Path {
    const VERSION: &str = "2.6.13.Final";
    static JAR: OnceLock<PathBuf> = OnceLock::new();
    JAR.get_or_init(|| {
        check_java();
        let fetched = fetched(&format!("apicurio-registry-{VERSION}"), |_, folder| {
            vec![
                "dependency:unpack".to_owned(),
                format!("-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"),
                format!("-DoutputDirectory={}", folder.display()),
            ]
        });
        // Its class path is the folder lib beside it.
        fetched.join(format!("apicurio-registry-app-{VERSION}-runner.jar"))
    })
}

/// The folder `name` of the cache. Where it is not there Maven is run in a scratch folder, with the arguments that `prepare`
/// returns for that folder and the one which it has to fill.
fn fetched(name: &str, prepare: impl FnOnce(&Path, &Path) -> Vec<String>) -> PathBuf {
    let cache = cache_dir();
    fs::create_dir_all(&cache).unwrap_or_else(|error| panic!("{}: {error}", cache.display()));
    let whole = cache.join(name);
    let lock = File::create(cache.join("lock")).unwrap_or_else(|error| panic!("{}: {error}", cache.display()));
    lock.lock().unwrap_or_else(|error| panic!("{}: cannot be locked: {error}", cache.display()));
    if whole.is_dir() {
        return whole;
    }
    let scratch = cache.join(format!("fetching-{name}"));
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).expect("the cache folder can be written");
    let filled = scratch.join("whole");
    let fetched = Command::new("mvn")
        .args(["-q", "-B"])
        .args(prepare(&scratch, &filled))
        .current_dir(&scratch)
        .output()
        .unwrap_or_else(|error| panic!("mvn cannot be run ({error}). Install it: {INSTALL}"));
    assert!(
        fetched.status.success(),
        "{name} could not be fetched from Maven Central (installed by {INSTALL}):\n{}",
        String::from_utf8_lossy(&fetched.stdout),
    );
    fs::rename(&filled, &whole).expect("both are in the cache folder");
    let _ = fs::remove_dir_all(&scratch);
    whole
}

fn pom(version: Version) -> String {
    let dependencies: String = version
        .artifacts()
        .iter()
        .map(|artifact| {
            let [group, name, version]: [&str; 3] =
                artifact.split(':').collect::<Vec<_>>().try_into().expect("group:artifact:version");
            // Two bindings of slf4j on one class path: which one logs would be chance.
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>\
                 <exclusions><exclusion><groupId>org.slf4j</groupId><artifactId>slf4j-log4j12</artifactId></exclusion>\
                 </exclusions></dependency>"
            )
        })
        .collect();
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>penstock</groupId><artifactId>tests</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{dependencies}</dependencies></project>"
    )
}

/// FNV-1a over the artifacts.
fn checksum(artifacts: &[&str]) -> u32 {
    artifacts
        .iter()
        .flat_map(|artifact| artifact.bytes().chain([b'\n']))
        .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn cache_dir() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("PENSTOCK_TEST_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("penstock")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/penstock")))
        .expect("PENSTOCK_TEST_CACHE, XDG_CACHE_HOME or HOME is set")
}
