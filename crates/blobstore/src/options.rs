//! Options of foreign servers and user mappings: which there are, what they may be, and the store that they describe.
//!
//! Server options can be read by everybody, so secrets are refused there. Options that name a file of the database
//! server ([`Definition::names_file`]) need the right to read such files; who calls [`validate`] checks that.
//! docs/stores.md has the table for people; a test compares it with [`DEFINITIONS`].

mod open;
mod values;

pub use open::{CacheSettings, Encryption, Environment, S5Api, S5Options, Settings, WalrusOptions, open, settings};

use crate::{Error, LARGEST_OBJECT, Result};
use values::Checked;

/// Kinds of stores that a server may be.
pub const KINDS: [&str; 3] = ["directory", "walrus", "s5"];

const ALL: &[&str] = &KINDS;
const REMOTE: &[&str] = &["walrus", "s5"];
const DIRECTORY: &[&str] = &["directory"];
const WALRUS: &[&str] = &["walrus"];
const S5: &[&str] = &["s5"];

/// Names and values, as in `OPTIONS (name 'value', ..)`.
pub type Options = [(String, String)];

/// Where options are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `CREATE FOREIGN DATA WRAPPER`: has none.
    Wrapper,
    /// `CREATE SERVER`.
    Server,
    /// `CREATE USER MAPPING`.
    UserMapping,
    /// `CREATE FOREIGN TABLE`: has none.
    Table,
}

/// An option.
pub struct Definition {
    pub name: &'static str,
    pub scope: Scope,
    /// Kinds of stores that have it.
    pub kinds: &'static [&'static str],
    /// Kinds of stores that cannot be without it.
    pub required: &'static [&'static str],
    pub secret: bool,
    /// The value is the path of a file or directory of the database server.
    pub names_file: bool,
    /// As a person would write it; empty if there is none.
    pub default: &'static str,
    check: fn(&str) -> Checked<()>,
    pub hint: &'static str,
}

const BASE: Definition = Definition {
    name: "",
    scope: Scope::Server,
    kinds: ALL,
    required: &[],
    secret: false,
    names_file: false,
    default: "",
    check: |value| values::not_empty(value).map(drop),
    hint: "",
};

const SECRET: Definition = Definition { scope: Scope::UserMapping, secret: true, ..BASE };

const FILE: Definition = Definition { names_file: true, check: |value| values::path(value).map(drop), ..BASE };

const SWITCH: Definition = Definition { check: |value| values::boolean(value).map(drop), ..BASE };

const TIME: Definition = Definition { check: |value| values::duration(value).map(drop), kinds: REMOTE, ..BASE };

/// All options, in the order in which docs/stores.md lists them.
pub const DEFINITIONS: &[Definition] = &[
    Definition {
        name: "type",
        required: ALL,
        check: |value| match KINDS.contains(&value) {
            true => Ok(()),
            false => Err("is no kind of store".to_owned()),
        },
        hint: "A kind of store is directory, walrus or s5.",
        ..BASE
    },
    Definition { name: "encrypt", hint: "With true, the user mapping needs a key or key_file.", ..SWITCH },
    Definition { name: "cache", hint: "Whether fetched objects are kept in the cache on disk.", ..SWITCH },
    Definition { name: "connect_timeout", default: "10s", hint: "A time such as 10s.", ..TIME },
    Definition { name: "timeout", default: "120s", hint: "For one request, a time such as 120s.", ..TIME },
    Definition {
        name: "retries",
        default: "4",
        kinds: REMOTE,
        check: |value| values::number(value, 0, 20).map(drop),
        hint: "How often a request that failed is made again.",
        ..BASE
    },
    Definition {
        name: "redirect_hosts",
        kinds: REMOTE,
        check: |value| values::hosts(value).map(drop),
        hint: "Hosts that the server may redirect to, e.g. cdn.example.org, storage.example.org:8443.",
        ..BASE
    },
    Definition { name: "ca_file", kinds: REMOTE, hint: "A file of certificates in PEM format.", ..FILE },
    Definition {
        name: "path",
        kinds: DIRECTORY,
        required: DIRECTORY,
        hint: "An absolute path, outside the data directory, without symbolic links.",
        ..FILE
    },
    Definition {
        name: "publisher",
        kinds: WALRUS,
        check: |value| values::url(value).map(drop),
        hint: "A URL such as https://publisher.example.org. Without one, archives can only be read.",
        ..BASE
    },
    Definition {
        name: "aggregator",
        kinds: WALRUS,
        required: WALRUS,
        check: |value| values::urls(value).map(drop),
        hint: "URLs such as https://aggregator.example.org, between commas.",
        ..BASE
    },
    Definition {
        name: "epochs",
        default: "5",
        kinds: WALRUS,
        check: |value| values::number(value, 1, 53).map(drop),
        hint: "How many epochs objects are to be kept, from 1 to 53.",
        ..BASE
    },
    Definition {
        name: "permanent",
        default: "true",
        kinds: WALRUS,
        hint: "Blobs that are not permanent are paid for at every store.",
        ..SWITCH
    },
    Definition {
        name: "send_object_to",
        kinds: WALRUS,
        check: |value| values::sui_address(value).map(drop),
        hint: "The Sui address that shall own what is stored.",
        ..BASE
    },
    Definition {
        name: "shards",
        default: "1000",
        kinds: WALRUS,
        check: |value| values::number(value, 10, 1000).map(drop),
        hint: "Shards of the network: 1000, except in tests.",
        ..BASE
    },
    Definition {
        name: "quilt_bytes",
        default: "32MB",
        kinds: WALRUS,
        check: |value| values::bytes(value, 1 << 20, 128 << 20).map(drop),
        hint: "How many bytes of objects are put into one quilt.",
        ..BASE
    },
    Definition {
        name: "storage_price",
        default: "100000",
        kinds: WALRUS,
        check: |value| values::number(value, 0, 1 << 40).map(drop),
        hint: "FROST for a unit (MiB of encoded bytes) and an epoch.",
        ..BASE
    },
    Definition {
        name: "write_price",
        default: "20000",
        kinds: WALRUS,
        check: |value| values::number(value, 0, 1 << 40).map(drop),
        hint: "FROST for a unit (MiB of encoded bytes) written.",
        ..BASE
    },
    Definition {
        name: "epoch_seconds",
        kinds: WALRUS,
        check: |value| values::number(value, 1, 1 << 32).map(drop),
        hint: "Length of an epoch: 1209600 on Mainnet, 86400 on Testnet. Without it, no expiry is told as a date.",
        ..BASE
    },
    Definition {
        name: "max_blob_bytes",
        default: "10MB",
        kinds: WALRUS,
        check: |value| values::bytes(value, LARGEST_OBJECT as u64, 1 << 34).map(drop),
        hint: "The longest body that the publisher takes for a blob.",
        ..BASE
    },
    Definition {
        name: "max_quilt_bytes",
        default: "100MB",
        kinds: WALRUS,
        check: |value| values::bytes(value, 1 << 20, 1 << 34).map(drop),
        hint: "The longest body that the publisher takes for a quilt.",
        ..BASE
    },
    Definition {
        name: "url",
        kinds: S5,
        required: S5,
        check: |value| values::url(value).map(drop),
        hint: "A URL such as https://s5.example.org or http://localhost:5522.",
        ..BASE
    },
    Definition {
        name: "api",
        default: "path",
        kinds: S5,
        check: |value| match value {
            "path" | "portal" => Ok(()),
            _ => Err("is not known".to_owned()),
        },
        hint: "path for a path service (/s5/fs), portal for a portal or node.",
        ..BASE
    },
    Definition {
        name: "prefix",
        default: "home/hybridvec",
        kinds: S5,
        check: |value| values::s5_prefix(value).map(drop),
        hint: "A directory such as home/hybridvec; for api path only.",
        ..BASE
    },
    Definition {
        name: "token",
        kinds: REMOTE,
        check: |value| values::token(value).map(drop),
        hint: "A bearer token.",
        ..SECRET
    },
    Definition {
        name: "token_file",
        scope: Scope::UserMapping,
        kinds: REMOTE,
        hint: "A file that contains a bearer token.",
        ..FILE
    },
    Definition {
        name: "jwt_secret",
        kinds: WALRUS,
        hint: "The publisher's secret; 0x.. for bytes in hexadecimal.",
        ..SECRET
    },
    Definition {
        name: "jwt_secret_file",
        scope: Scope::UserMapping,
        kinds: WALRUS,
        hint: "A file that contains the publisher's secret.",
        ..FILE
    },
    Definition { name: "seed", kinds: S5, hint: "The seed phrase of an account at a portal.", ..SECRET },
    Definition {
        name: "seed_file",
        scope: Scope::UserMapping,
        kinds: S5,
        hint: "A file that contains the seed phrase of an account at a portal.",
        ..FILE
    },
    Definition {
        name: "key",
        check: |value| values::hash(value).map(drop),
        hint: "The key of the archives: 64 hexadecimal digits, e.g. from openssl rand -hex 32.",
        ..SECRET
    },
    Definition {
        name: "key_file",
        scope: Scope::UserMapping,
        hint: "A file that contains the key of the archives: 64 hexadecimal digits.",
        ..FILE
    },
];

impl Definition {
    fn error(&self, message: impl Into<String>) -> Error {
        let hint = (!self.hint.is_empty()).then(|| self.hint.to_owned());
        Error::Option { option: self.name.to_owned(), message: message.into(), hint }
    }
}

/// The option of this name in this scope.
pub fn definition(scope: Scope, name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.scope == scope && definition.name == name)
}

/// Checks all options of a server, a user mapping, or of what has none.
///
/// # Errors
/// [`Error::Option`] for the first bad one, with what to write instead; no value of an option is repeated in it.
pub fn validate(scope: Scope, options: &Options) -> Result<()> {
    let kind = match scope {
        Scope::Server => Some(kind(options)?),
        _ => None,
    };
    for (index, (name, value)) in options.iter().enumerate() {
        let definition = definition(scope, name).ok_or_else(|| unknown(scope, name, kind))?;
        if let Some(kind) = kind.filter(|kind| !definition.kinds.contains(kind)) {
            return Err(Error::Option {
                option: name.clone(),
                message: format!("has no meaning for a server of type {kind}"),
                hint: Some(format!("It belongs to type {}.", definition.kinds.join(" or "))),
            });
        }
        if options[..index].iter().any(|(other, _)| other == name) {
            return Err(definition.error("is given twice"));
        }
        (definition.check)(value).map_err(|what| definition.error(what))?;
    }
    for definition in DEFINITIONS.iter().filter(|definition| definition.scope == scope) {
        if kind.is_some_and(|kind| definition.required.contains(&kind)) && find(options, definition.name).is_none() {
            return Err(definition.error(format!("a server of type {} needs it", kind.unwrap_or_default())));
        }
    }
    together(scope, options)
}

/// Rules about two options.
fn together(scope: Scope, options: &Options) -> Result<()> {
    if find(options, "api") == Some("portal") && find(options, "prefix").is_some() {
        return Err(Error::Option {
            option: "prefix".to_owned(),
            message: "has no meaning for api portal, which knows no paths".to_owned(),
            hint: Some("Remove it, or use api path.".to_owned()),
        });
    }
    for name in ["token", "jwt_secret", "seed", "key"] {
        let file = format!("{name}_file");
        if scope == Scope::UserMapping && find(options, name).is_some() && find(options, &file).is_some() {
            return Err(Error::Option {
                option: file.clone(),
                message: format!("\"{name}\" is given too"),
                hint: Some("One of them is enough.".to_owned()),
            });
        }
    }
    Ok(())
}

/// Whether a path is absolute and without `..`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn plain_path(path: &std::path::Path) -> Checked<()> {
    path.to_str().ok_or_else(|| "must be UTF-8".to_owned()).and_then(|text| values::path(text).map(drop))
}

/// The options among these whose values are paths on the database server.
pub fn files(scope: Scope, options: &Options) -> impl Iterator<Item = &str> {
    let names_file = move |name: &str| definition(scope, name).is_some_and(|definition| definition.names_file);
    options.iter().map(|(name, _)| name.as_str()).filter(move |name| names_file(name))
}

fn find<'a>(options: &'a Options, name: &str) -> Option<&'a str> {
    options.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

fn kind(options: &Options) -> Result<&'static str> {
    let missing = || Error::Option {
        option: "type".to_owned(),
        message: "is missing".to_owned(),
        hint: Some("A kind of store is directory, walrus or s5.".to_owned()),
    };
    let value = find(options, "type").ok_or_else(missing)?;
    KINDS.into_iter().find(|kind| *kind == value).ok_or_else(|| Error::Option {
        option: "type".to_owned(),
        message: "is no kind of store".to_owned(),
        hint: Some("A kind of store is directory, walrus or s5.".to_owned()),
    })
}

/// Why there is no such option here, and what may have been meant.
fn unknown(scope: Scope, name: &str, kind: Option<&'static str>) -> Error {
    let elsewhere = DEFINITIONS.iter().find(|definition| definition.name == name);
    let (message, hint) = match (scope, elsewhere) {
        (Scope::Wrapper | Scope::Table, _) => {
            ("is not known here".to_owned(), Some("Options belong to the server and to the user mapping.".to_owned()))
        }
        (Scope::Server, Some(definition)) if definition.secret => (
            "is a secret, and server options can be read by everybody".to_owned(),
            Some(format!("Use CREATE USER MAPPING .. OPTIONS ({name} '..').")),
        ),
        (Scope::Server, Some(_)) => ("belongs to the user mapping".to_owned(), None),
        (Scope::UserMapping, Some(_)) => ("belongs to the server".to_owned(), None),
        (_, None) => ("is not known".to_owned(), nearest(scope, name, kind)),
    };
    Error::Option { option: name.to_owned(), message, hint }
}

fn nearest(scope: Scope, name: &str, kind: Option<&'static str>) -> Option<String> {
    let fits = |definition: &&Definition| {
        definition.scope == scope && kind.is_none_or(|kind| definition.kinds.contains(&kind))
    };
    let (distance, best) = DEFINITIONS
        .iter()
        .filter(fits)
        .map(|definition| (edits(name, definition.name), definition.name))
        .min_by_key(|(distance, _)| *distance)?;
    if distance <= (best.len() / 3).max(1) {
        return Some(format!("Perhaps \"{best}\" was meant."));
    }
    let names: Vec<&str> = DEFINITIONS.iter().filter(fits).map(|definition| definition.name).collect();
    Some(format!("Options here are: {}.", names.join(", ")))
}

/// Insertions, deletions and replacements that make one text of the other (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // Names of options are short; a long one is none of ours.
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
