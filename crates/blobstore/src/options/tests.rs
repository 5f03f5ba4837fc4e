use super::*;

fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Option, message and hint of the error.
fn complaint(scope: Scope, pairs: &[(&str, &str)]) -> (String, String, String) {
    match validate(scope, &options(pairs)) {
        Err(Error::Option { option, message, hint }) => (option, message, hint.unwrap_or_default()),
        other => panic!("{pairs:?}: {other:?}"),
    }
}

const WALRUS_SERVER: [(&str, &str); 2] = [("type", "walrus"), ("aggregator", "https://a.example.org")];

#[test]
fn good_options_pass() {
    let address = format!("0x{}", "ab".repeat(32));
    for pairs in [
        &[("type", "directory"), ("path", "/srv/attic")][..],
        &WALRUS_SERVER,
        &[
            ("type", "walrus"),
            ("publisher", "https://p.example.org/"),
            ("aggregator", "https://a.example.org, http://[::1]:9"),
            ("epochs", "53"),
            ("permanent", "false"),
            ("send_object_to", &address),
            ("quilt_bytes", "8MB"),
            ("timeout", "5min"),
            ("redirect_hosts", "cdn.example.org"),
            ("encrypt", "on"),
        ],
        &[("type", "s5"), ("url", "http://localhost:5522"), ("api", "path"), ("prefix", "home/x")],
        &[("type", "s5"), ("url", "https://s5.example.org"), ("api", "portal")],
    ] {
        validate(Scope::Server, &options(pairs)).unwrap_or_else(|error| panic!("{pairs:?}: {error}"));
    }
    let key = "00".repeat(32);
    validate(Scope::UserMapping, &options(&[("token", "abc"), ("key", &key)])).unwrap();
    validate(Scope::UserMapping, &[]).unwrap();
    validate(Scope::Wrapper, &[]).unwrap();
}

#[test]
fn bad_options_are_explained() {
    for (scope, pairs, option, message, hint) in [
        (Scope::Server, &[][..], "type", "is missing", "directory, walrus or s5"),
        (Scope::Server, &[("type", "ftp")], "type", "no kind", "directory, walrus or s5"),
        (Scope::Server, &[("type", "directory")], "path", "needs it", "absolute path"),
        (Scope::Server, &[("type", "directory"), ("path", "srv")], "path", "absolute", "data directory"),
        (Scope::Server, &[("type", "directory"), ("path", "/a/../b")], "path", "..", ""),
        (Scope::Server, &[("type", "directory"), ("path", "/a"), ("epochs", "5")], "epochs", "no meaning", "walrus"),
        (Scope::Server, &[("type", "directory"), ("pth", "/a")], "pth", "not known", "\"path\""),
        (Scope::Server, &[("type", "directory"), ("colour", "/a")], "colour", "not known", "Options here are: type"),
        (Scope::Server, &[("type", "walrus"), ("agregator", "x")], "agregator", "not known", "\"aggregator\""),
        (Scope::Server, &[("type", "walrus"), ("aggregator", "https://me:pw@x")], "aggregator", "credentials", ""),
        (Scope::Server, &[("type", "walrus"), ("aggregator", "http://example.org")], "aggregator", "needs https", ""),
        (
            Scope::Server,
            &[("type", "s5"), ("url", "http://localhost"), ("token", "T0P")],
            "token",
            "is a secret",
            "MAPPING",
        ),
        (
            Scope::Server,
            &[("type", "s5"), ("url", "http://localhost"), ("key_file", "/k")],
            "key_file",
            "user mapping",
            "",
        ),
        (
            Scope::Server,
            &[("type", "s5"), ("url", "http://localhost"), ("api", "portal"), ("prefix", "home/x")],
            "prefix",
            "no meaning for api portal",
            "",
        ),
        (Scope::Server, &[("type", "s5"), ("type", "s5"), ("url", "http://localhost")], "type", "twice", ""),
        (Scope::UserMapping, &[("path", "/a")], "path", "belongs to the server", ""),
        (Scope::UserMapping, &[("key", "T0P")], "key", "64 hexadecimal", "openssl"),
        (Scope::UserMapping, &[("token", "T0P x")], "token", "without spaces", ""),
        (Scope::UserMapping, &[("token", "T0P"), ("token_file", "/t")], "token_file", "given too", ""),
        (Scope::Wrapper, &[("type", "s5")], "type", "not known here", ""),
        (Scope::Table, &[("x", "s5")], "x", "not known here", ""),
    ] {
        let (found, text, advice) = complaint(scope, pairs);
        assert!(
            found == option && text.contains(message) && advice.contains(hint),
            "{pairs:?}: {found}: {text} ({advice})"
        );
        for (_, value) in pairs.iter().filter(|(_, value)| value.contains("T0P") || value.contains("pw")) {
            assert!(!text.contains(value) && !advice.contains(value), "{text} shows a secret");
        }
    }
}

#[test]
fn secrets_are_in_user_mappings_only() {
    for definition in DEFINITIONS {
        assert!(!definition.secret || definition.scope == Scope::UserMapping, "{}", definition.name);
        assert!(definition.default.is_empty() || (definition.check)(definition.default).is_ok(), "{}", definition.name);
        assert!(!definition.hint.is_empty() || definition.name == "permanent", "{} has no hint", definition.name);
    }
    let named = options(&[("token_file", "/t"), ("key", "k"), ("key_file", "/k")]);
    assert_eq!(files(Scope::UserMapping, &named).collect::<Vec<_>>(), ["token_file", "key_file"]);
    assert_eq!(files(Scope::Server, &options(&[("path", "/a"), ("ca_file", "/c"), ("type", "s5")])).count(), 2);
}

#[test]
fn encryption_needs_a_key_and_a_key_encrypts() {
    let directory = [("type", "directory"), ("path", "/srv/attic")];
    let with = |encrypt: &str| options(&[&directory[..], &[("encrypt", encrypt)]].concat());
    let key = options(&[("key", &"0f".repeat(32))]);
    assert!(matches!(settings(&with("true"), &[]), Err(Error::Option { option, .. }) if option == "encrypt"));
    assert!(!settings(&options(&directory), &[]).unwrap().encryption.write);
    let on = settings(&options(&directory), &key).unwrap();
    assert!(on.encryption.write && on.encryption.key == Some([0x0f; 32]) && !on.cache);
    assert!(!format!("{on:?}").contains("15"), "the key is not printed");
    let off = settings(&with("false"), &key).unwrap().encryption;
    assert!(!off.write && off.key.is_some(), "the key still reads");
    assert!(settings(&options(&WALRUS_SERVER), &[]).unwrap().cache);
}

#[test]
fn secrets_come_from_files_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let path = file.to_str().unwrap();
    let mapping = options(&[("key_file", path)]);
    let server = options(&[("type", "directory"), ("path", "/srv/attic")]);
    let message = |mapping: &[(String, String)]| settings(&server, mapping).unwrap_err().to_string();
    assert!(message(&mapping).contains("cannot be read"));
    std::fs::write(&file, "T0P SECRET").unwrap();
    assert!(message(&mapping).contains("64 hexadecimal") && !message(&mapping).contains("T0P"));
    std::fs::write(&file, vec![b'0'; 2 << 20]).unwrap();
    assert!(message(&mapping).contains("too long"));
    std::fs::write(&file, format!(" {}\n", "0f".repeat(32))).unwrap();
    assert_eq!(settings(&server, &mapping).unwrap().encryption.key, Some([0x0f; 32]));
    assert!(message(&options(&[("key_file", directory.path().to_str().unwrap())])).contains("not a file"));
}

#[test]
fn the_document_lists_all_options() {
    let document = include_str!("../../../../docs/stores.md");
    for definition in DEFINITIONS {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{}` |", definition.name)));
        let row = row.unwrap_or_else(|| panic!("docs/stores.md does not list \"{}\"", definition.name));
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let scope = if definition.scope == Scope::Server { "server" } else { "mapping" };
        let kinds = if definition.kinds == ALL { "all".to_owned() } else { definition.kinds.join(", ") };
        let default = match definition.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let nature = match (definition.secret, definition.names_file) {
            (true, _) => "secret",
            (_, true) => "file",
            _ => "",
        };
        assert_eq!(cells[2..6], [scope, &kinds, &default, nature], "{row}");
    }
}
