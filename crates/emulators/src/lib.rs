//! Servers that behave as Walrus and S5 do, for tests and demos: real sockets, genuine identifiers, faults on request.
//!
//! Each emulator is an axum router over a state of its own. [`serve`] puts it behind a socket on loopback, with the
//! faults of [`faults`] in front of it, and answers the routes under `/_emulator/`, which no real service has:
//!
//! | route | what it does |
//! |---|---|
//! | `POST /_emulator/faults` | adds one [`faults::Fault`] or an array of them (JSON) |
//! | `DELETE /_emulator/faults` | removes all |
//! | `GET /_emulator/requests` | method, path and body length of each request, oldest first, without the ones under `/_emulator/` |
//!
//! An emulator may add more routes there.

pub mod faults;
pub mod s5;
mod server;
pub mod walrus;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

pub use server::{Request, Server, serve};

/// What every emulator is started with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Port on loopback; 0 takes a free one.
    pub port: u16,
    /// Directory in which the state outlives the process; `None` keeps it in memory.
    pub state: Option<PathBuf>,
}

impl Settings {
    /// Takes `port` and `state` out of the options.
    ///
    /// # Errors
    /// When the port is not a number.
    pub fn take(options: &mut Options) -> io::Result<Self> {
        let port = options.number("port", 0)?;
        let state = options.values.remove("state").map(PathBuf::from);
        options.values.remove("port");
        Ok(Self { port, state })
    }
}

/// Options from the command line: `--name value`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub values: BTreeMap<String, String>,
}

impl Options {
    /// # Errors
    /// When an argument is not `--name` or its value is missing.
    pub fn parse(arguments: &[String]) -> io::Result<Self> {
        let mut values = BTreeMap::new();
        for pair in arguments.chunks(2) {
            match pair {
                [name, value] if name.starts_with("--") => values.insert(name[2..].to_string(), value.clone()),
                _ => return Err(io::Error::other(format!("cannot read \"{}\": write --name value", pair.join(" ")))),
            };
        }
        Ok(Self { values })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// # Errors
    /// When the value is there and not a number of the type asked for.
    pub fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> io::Result<T> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| io::Error::other(format!("--{name}: \"{text}\" is not a number"))),
        }
    }
}
