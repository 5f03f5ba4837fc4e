//! `emulators walrus|s5|s5-portal|all [--port N] [--state DIR] [--name value ..]`: runs an emulator until it is stopped. The first
//! line of its output is the address that it listens on; `all` prints one line `name address` per emulator, on
//! consecutive ports from N (0: free ones). Every other `--name value` is an option of the emulator.

use emulators::{Options, Server, Settings};
use std::io::{self, Write};
use std::process::ExitCode;

type Start = fn(&Settings, &Options) -> io::Result<Server>;

/// The emulators by name.
const EMULATORS: &[(&str, Start)] = &[
    ("walrus", emulators::walrus::start),
    ("s5", emulators::s5::path::start),
    ("s5-portal", emulators::s5::portal::start),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("emulators: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> io::Result<()> {
    let (kind, rest) = arguments.split_first().ok_or_else(|| usage("which emulator?"))?;
    let mut options = Options::parse(rest)?;
    let settings = Settings::take(&mut options)?;
    let servers = start(kind, &settings, &options)?;
    for (name, server) in &servers {
        let label = if kind == "all" { format!("{name} ") } else { String::new() };
        println!("{label}{}", server.url());
    }
    io::stdout().flush()?;
    servers.into_iter().for_each(|(_, server)| server.wait());
    Ok(())
}

fn start(kind: &str, settings: &Settings, options: &Options) -> io::Result<Vec<(&'static str, Server)>> {
    let chosen: Vec<_> = EMULATORS.iter().filter(|(name, _)| kind == "all" || *name == kind).collect();
    if chosen.is_empty() {
        return Err(usage(&format!("there is no emulator \"{kind}\"")));
    }
    let mut servers = Vec::new();
    for (position, (name, start)) in (0_u16..).zip(chosen) {
        let port = if settings.port == 0 { 0 } else { settings.port + position };
        let state = settings.state.as_ref().map(|directory| directory.join(name));
        servers.push((*name, start(&Settings { port, state }, options)?));
    }
    Ok(servers)
}

fn usage(problem: &str) -> io::Error {
    let names: Vec<&str> = EMULATORS.iter().map(|(name, _)| *name).collect();
    io::Error::other(format!("{problem} usage: emulators {}|all [--port N] [--state DIR] ..", names.join("|")))
}
