//! From options to a store.

use super::{Options, Scope, find, kind, validate, values};
use crate::cache::{Cache, Cached};
use crate::directory::Directory;
use crate::http::{Network, Url, Wallclock};
use crate::receipts::Receipts;
use crate::redact::{Redactor, Secret};
use crate::{Error, Hash, Result, Store};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

/// Longest file of a secret or of certificates.
const LONGEST_FILE: u64 = 1 << 20;

/// What a store needs to know of the place where it runs.
#[derive(Clone, Debug)]
pub struct Environment {
    /// PostgreSQL's. Receipts are kept below it, directory stores are refused inside of it.
    pub data_directory: PathBuf,
    /// `None`: nothing is cached, e.g. to verify what the store itself holds.
    pub cache: Option<CacheSettings>,
    pub wallclock: Wallclock,
}

#[derive(Clone, Debug)]
pub struct CacheSettings {
    pub directory: PathBuf,
    /// Bytes on disk, of all sessions together.
    pub bytes: u64,
    /// Bytes in memory, of one store.
    pub memory: usize,
}

impl Environment {
    /// The cache at its usual place, 1 GiB on disk and 32 MiB in memory.
    pub fn new(data_directory: impl Into<PathBuf>) -> Self {
        let data_directory = data_directory.into();
        let directory = data_directory.join("pg_hybrid").join("cache");
        let cache = Some(CacheSettings { directory, bytes: 1 << 30, memory: 32 << 20 });
        Self { data_directory, cache, wallclock: Wallclock::default() }
    }
}

/// What is for the archive's formats, not for the store.
#[derive(Clone, PartialEq, Eq)]
pub struct Encryption {
    /// What is written is to be encrypted; there is a key then.
    pub write: bool,
    /// Needed to read what was encrypted.
    pub key: Option<Hash>,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryption").field("write", &self.write).finish_non_exhaustive()
    }
}

/// Options that all kinds of stores have, read.
#[derive(Clone, Debug)]
pub struct Settings {
    pub kind: &'static str,
    pub encryption: Encryption,
    /// Fetched objects are kept in the cache on disk; without the option: if the store is remote.
    pub cache: bool,
}

/// A Walrus publisher and aggregators. Prices in FROST.
#[derive(Debug)]
pub struct WalrusOptions {
    pub server: String,
    pub publisher: Option<Url>,
    /// At least one, in the order in which they are to be asked.
    pub aggregators: Vec<Url>,
    pub epochs: u32,
    pub permanent: bool,
    pub send_object_to: Option<String>,
    pub shards: u16,
    pub quilt_bytes: u64,
    pub storage_price: u64,
    pub write_price: u64,
    pub epoch_seconds: Option<u64>,
    pub max_blob_bytes: u64,
    pub max_quilt_bytes: u64,
    pub token: Option<Secret>,
    /// As given: text, or `0x` and hexadecimal digits.
    pub jwt_secret: Option<Secret>,
    pub network: Network,
    pub receipts: Receipts,
}

/// Which of S5's interfaces a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S5Api {
    Path,
    Portal,
}

/// An S5 path service or portal.
#[derive(Debug)]
pub struct S5Options {
    pub server: String,
    pub url: Url,
    pub api: S5Api,
    /// For [`S5Api::Path`].
    pub prefix: String,
    pub token: Option<Secret>,
    /// For the login at a portal.
    pub seed: Option<Secret>,
    pub network: Network,
    pub receipts: Receipts,
}

/// Options of a server and of the user mapping, as they are or by default.
struct Reader<'a> {
    server: &'a Options,
    mapping: &'a Options,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        let default = || super::definition(Scope::Server, name).map(|definition| definition.default);
        find(self.server, name).or_else(default).filter(|value| !value.is_empty())
    }

    fn value<T>(&self, name: &str, read: impl FnOnce(&str) -> values::Checked<T>) -> Result<Option<T>> {
        self.text(name).map(|text| read(text).map_err(|message| option(name, message))).transpose()
    }

    fn required<T>(&self, name: &str, read: impl FnOnce(&str) -> values::Checked<T>) -> Result<T> {
        self.value(name, read)?.ok_or_else(|| option(name, "is missing".to_owned()))
    }

    fn number(&self, name: &str) -> Result<u64> {
        self.required(name, |text| values::number(text, 0, u64::MAX))
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.required(name, |text| values::bytes(text, 0, u64::MAX))
    }

    /// A secret of the user mapping, given there or in a file; white space around it in a file is not part of it.
    fn secret(&self, name: &str) -> Result<Option<Secret>> {
        if let Some(value) = find(self.mapping, name) {
            return Ok(Some(Secret::new(value)));
        }
        let file_option = format!("{name}_file");
        let Some(path) = find(self.mapping, &file_option) else { return Ok(None) };
        let text = String::from_utf8(read_file(&file_option, path)?)
            .map_err(|_| option(&file_option, "the file is not text".to_owned()))?;
        let check = super::definition(Scope::UserMapping, name).map(|definition| definition.check);
        if let Some(Err(what)) = check.map(|check| check(text.trim())) {
            return Err(option(&file_option, format!("the content of the file {what}")));
        }
        Ok(Some(Secret::new(text.trim())))
    }
}

fn option(name: &str, message: String) -> Error {
    Error::Option { option: name.to_owned(), message, hint: None }
}

/// # Errors
/// [`Error::Option`] if the file cannot be read, or is too long to be what it should be.
fn read_file(name: &str, path: &str) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| option(name, format!("the file cannot be read: {}", error.kind()));
    let file = std::fs::File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(option(name, "is not a file".to_owned()));
    }
    let mut content = Vec::new();
    file.take(LONGEST_FILE + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > LONGEST_FILE {
        return Err(option(name, "the file is too long".to_owned()));
    }
    Ok(content)
}

/// Reads the options that all kinds of stores have.
///
/// # Errors
/// [`Error::Option`], also if encryption is asked for and there is no key.
pub fn settings(server_options: &Options, mapping_options: &Options) -> Result<Settings> {
    validate(Scope::Server, server_options)?;
    validate(Scope::UserMapping, mapping_options)?;
    let reader = Reader { server: server_options, mapping: mapping_options };
    let kind = kind(server_options)?;
    let key =
        reader.secret("key")?.map(|key| values::hash(key.reveal()).map_err(|what| option("key", what))).transpose()?;
    let write = reader.value("encrypt", values::boolean)?.unwrap_or(key.is_some());
    if write && key.is_none() {
        return Err(Error::Option {
            option: "encrypt".to_owned(),
            message: "is true, and the user mapping has no key".to_owned(),
            hint: Some("Use CREATE USER MAPPING .. OPTIONS (key '..'), or key_file.".to_owned()),
        });
    }
    let cache = reader.value("cache", values::boolean)?.unwrap_or(kind != "directory");
    Ok(Settings { kind, encryption: Encryption { write, key }, cache })
}

/// The store that a server and a user mapping describe. Nothing is sent, and no thread started; a directory is opened.
///
/// # Errors
/// [`Error::Option`]; [`Error::File`] if the directory of a store cannot be opened.
pub fn open(
    server: &str,
    server_options: &Options,
    mapping_options: &Options,
    environment: &Environment,
) -> Result<Arc<dyn Store>> {
    let settings = settings(server_options, mapping_options)?;
    let reader = Reader { server: server_options, mapping: mapping_options };
    let store: Arc<dyn Store> = match settings.kind {
        "walrus" => crate::walrus::open(walrus(server, &reader, environment)?)?,
        "s5" => crate::s5::open(s5(server, &reader, environment)?)?,
        _ => {
            let path = reader.required("path", |text| values::path(text).map(ToOwned::to_owned))?;
            Arc::new(Directory::open(&path, Some(&environment.data_directory))?)
        }
    };
    match &environment.cache {
        Some(cache) if settings.cache => {
            Ok(Arc::new(Cached::new(store, Cache::new(cache.directory.clone(), cache.bytes, cache.memory))))
        }
        _ => Ok(store),
    }
}

fn network(reader: &Reader<'_>, environment: &Environment) -> Result<Network> {
    let mut secrets = Vec::new();
    for name in ["token", "jwt_secret", "seed", "key"] {
        secrets.extend(reader.secret(name)?);
    }
    Ok(Network {
        connect_timeout: reader.required("connect_timeout", values::duration)?,
        timeout: reader.required("timeout", values::duration)?,
        retries: u32::try_from(reader.number("retries")?).unwrap_or(u32::MAX),
        redirect_hosts: reader.value("redirect_hosts", values::hosts)?.unwrap_or_default(),
        authorities: reader.text("ca_file").map(|path| read_file("ca_file", path)).transpose()?,
        redactor: Redactor::new(secrets),
        wallclock: environment.wallclock.clone(),
    })
}

/// Receipts are of the place that was paid, not of the name that the server has today.
fn receipts(kind: &str, place: &Url, environment: &Environment) -> Receipts {
    Receipts::new(&environment.data_directory.join("pg_hybrid").join("receipts"), &format!("{kind} {place}"))
}

fn walrus(server: &str, reader: &Reader<'_>, environment: &Environment) -> Result<WalrusOptions> {
    let publisher = reader.value("publisher", values::url)?;
    let aggregators = reader.required("aggregator", values::urls)?;
    let place =
        publisher.as_ref().or(aggregators.first()).ok_or_else(|| option("aggregator", "is missing".to_owned()))?;
    Ok(WalrusOptions {
        server: server.to_owned(),
        receipts: receipts("walrus", place, environment),
        epochs: u32::try_from(reader.number("epochs")?).unwrap_or(u32::MAX),
        permanent: reader.required("permanent", values::boolean)?,
        send_object_to: reader.text("send_object_to").map(ToOwned::to_owned),
        shards: u16::try_from(reader.number("shards")?).unwrap_or(u16::MAX),
        quilt_bytes: reader.size("quilt_bytes")?,
        storage_price: reader.number("storage_price")?,
        write_price: reader.number("write_price")?,
        epoch_seconds: reader.value("epoch_seconds", |text| values::number(text, 1, u64::MAX))?,
        max_blob_bytes: reader.size("max_blob_bytes")?,
        max_quilt_bytes: reader.size("max_quilt_bytes")?,
        token: reader.secret("token")?,
        jwt_secret: reader.secret("jwt_secret")?,
        network: network(reader, environment)?,
        publisher,
        aggregators,
    })
}

fn s5(server: &str, reader: &Reader<'_>, environment: &Environment) -> Result<S5Options> {
    let url = reader.required("url", values::url)?;
    Ok(S5Options {
        server: server.to_owned(),
        api: if reader.text("api") == Some("portal") { S5Api::Portal } else { S5Api::Path },
        prefix: reader.text("prefix").unwrap_or_default().to_owned(),
        token: reader.secret("token")?,
        seed: reader.secret("seed")?,
        network: network(reader, environment)?,
        receipts: receipts("s5", &url, environment),
        url,
    })
}
