//! Which foreign packages may be built in: licences, bans, and one version of each.

use std::collections::BTreeMap;

use super::metadata::metadata;

/// Licences that ask for no more than a notice. An expression passes when one of its
/// alternatives is made of these.
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that must not be built in, with the reason.
const BANNED: [(&str, &str); 5] = [
    ("aws-lc-rs", "a second cryptography library that needs a C build; ring is the one used"),
    ("aws-lc-sys", "comes with aws-lc-rs"),
    ("openssl", "depends on the system's library; rustls is the one used"),
    ("openssl-sys", "comes with openssl"),
    ("bincode", "its bytes are no promise; formats on disk and wire are our own"),
];

/// Packages that may be built in with more than one version, with the reason.
const DUPLICATES: &[(&str, &str)] = &[
    (
        "block-buffer",
        "tokio-postgres logs in with a newer sha2 than the sha1 of WebSocket handshakes",
    ),
    (
        "cpufeatures",
        "tokio-postgres logs in with a newer sha2 than the sha1 of WebSocket handshakes",
    ),
    (
        "crypto-common",
        "tokio-postgres logs in with a newer sha2 than the sha1 of WebSocket handshakes",
    ),
    ("digest", "tokio-postgres logs in with a newer sha2 than the sha1 of WebSocket handshakes"),
    ("fallible-iterator", "rusqlite and tokio-postgres have not met on one version"),
    ("base64", "hyper-util has moved on, the clients have not; small"),
    ("bitflags", "raft's build helper is old; nothing of it is in the program"),
    ("getrandom", "one per generation of rand below"),
    ("hashbrown", "quick_cache and indexmap are a version apart"),
    ("rand", "raft draws with an old one, WebSocket masks come from a newer one"),
    ("rand_chacha", "comes with rand"),
    ("rand_core", "comes with rand"),
    ("syn", "macros at build time only"),
    ("synstructure", "an option of rcgen that is not used names an older one; macros only"),
    ("thiserror", "raft has the old one; macros and one trait"),
    ("thiserror-impl", "comes with thiserror"),
];

#[test]
fn licences_are_on_the_list() {
    let members = &metadata().workspace_members;
    let mut wrong = Vec::new();
    for package in metadata().shipped() {
        let licence = package.license.as_deref().unwrap_or("");
        let ours = members.contains(&package.id);
        if !allowed(licence) || (ours && licence != "Apache-2.0") {
            let file = &package.license_file;
            wrong.push(format!("{} {}: {licence:?}, file {file:?}", package.name, package.version));
        }
    }
    assert!(wrong.is_empty(), "licences that nobody has looked at: {wrong:#?}");
}

/// Whether one alternative of the expression is made of licences on the list.
fn allowed(expression: &str) -> bool {
    // Older manifests write `MIT/Apache-2.0` for `MIT OR Apache-2.0`.
    let plain = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // A bracket may only change what AND binds to. Reading every AND as the tighter one can
    // refuse too much, never too little, as long as each part is looked at on its own.
    let bracketed = expression.contains('(');
    let alternatives = || plain.split(" OR ").map(str::trim);
    let sound = |part: &str| part.split(" AND ").all(|one| LICENCES.contains(&one.trim()));
    if bracketed && plain.contains(" AND ") {
        return plain
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|one| LICENCES.contains(&one.trim())));
    }
    alternatives().any(sound)
}

#[test]
fn banned_packages_are_absent() {
    for package in metadata().shipped() {
        if let Some((name, reason)) = BANNED.iter().find(|(name, _)| *name == package.name) {
            panic!("{name} is banned: {reason}");
        }
    }
}

#[test]
fn no_package_is_built_in_twice_without_a_reason() {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in metadata().shipped() {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions.retain(|name, versions| {
        versions.len() > 1 && !DUPLICATES.iter().any(|(known, _)| known == name)
    });
    assert!(versions.is_empty(), "more than one version and no reason: {versions:#?}");
}

#[test]
fn licence_expressions_are_read_right() {
    assert!(allowed("MIT OR GPL-3.0"));
    assert!(allowed("MIT/Apache-2.0"));
    assert!(allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(allowed("Apache-2.0 WITH LLVM-exception OR MIT"));
    assert!(!allowed("MIT AND GPL-3.0"));
    assert!(!allowed("(MIT OR Apache-2.0) AND OpenSSL"));
    assert!(!allowed(""));
    assert!(!allowed("AGPL-3.0"));
}
