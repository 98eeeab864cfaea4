//! Files that are good, bad, and renewed; and certificates for the tests of the ports.

use std::process::Command;

use tempfile::TempDir;

use super::*;

pub(crate) const TOKEN: &str = "reader-0123456789abcdef";

/// A folder with what `access` reads, and an authority of its own that signs certificates.
pub(crate) struct Files(TempDir);

impl Files {
    /// Makes an authority, and a certificate for this machine signed by it.
    pub(crate) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.key("ca.key");
        files.openssl("req -x509 -key ca.key -out ca.pem -days 30 -subj /CN=tests");
        files.renew();
        files
    }

    /// Signs another certificate for this machine, with another key.
    pub(crate) fn renew(&self) {
        self.write("names", "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
        self.key("key.pem");
        self.openssl("req -new -key key.pem -out request -subj /CN=localhost");
        self.openssl("x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 30 -extfile names");
    }

    fn key(&self, name: &str) {
        self.openssl(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let mut openssl = Command::new("openssl");
        openssl
            .args(arguments.split(' '))
            .current_dir(self.0.path());
        let done = openssl.output().expect("`openssl` is installed");
        assert!(done.status.success(), "openssl {arguments}: {done:?}");
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns settings of TLS with these files.
    pub(crate) fn tls(&self) -> AccessSection {
        AccessSection {
            tls_cert: Some(self.path("cert.pem")),
            tls_key: Some(self.path("key.pem")),
            tls_ca: Some(self.path("ca.pem")),
            ..AccessSection::default()
        }
    }
}

/// Returns settings that demand tokens, one a line.
pub(crate) fn demanding(tokens: &str) -> AccessSection {
    AccessSection {
        token: Some(Secret::new(tokens.to_owned())),
        ..AccessSection::default()
    }
}

#[test]
fn each_fault_of_a_file_is_told_by_its_key_and_without_its_contents() {
    let files = Files::new();
    let check = |section: AccessSection, expected: &[(&str, &str)]| {
        let faults = section.read().expect_err("a fault");
        let told: Vec<_> = faults
            .iter()
            .map(|(key, why)| (*key, why.as_str()))
            .collect();
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for ((key, why), (expected, part)) in told.iter().zip(expected) {
            assert_eq!(key, expected);
            assert!(why.contains(part) && !why.contains("s3cret"), "{why}");
        }
    };
    let token_file = |text: &str| AccessSection {
        token_file: Some(files.write("tokens", text)),
        ..AccessSection::default()
    };
    let length = "a token has 16 to 512 characters";
    check(demanding("s3cret"), &[("token", length)]);
    check(token_file(&"s3cret".repeat(100)), &[("token_file", length)]);
    check(
        token_file("s3cret with a space"),
        &[("token_file", "without spaces")],
    );
    check(token_file(" \n\n"), &[("token_file", "there is no token")]);
    check(
        token_file(&format!("{TOKEN}\n").repeat(9)),
        &[("token_file", "more than 8")],
    );

    let with = |change: fn(&mut AccessSection, PathBuf), path: PathBuf| {
        let mut section = files.tls();
        change(&mut section, path);
        section
    };
    let cert = |section: &mut AccessSection, path| section.tls_cert = Some(path);
    let key = |section: &mut AccessSection, path| section.tls_key = Some(path);
    let bad = || files.write("bad", "-----BEGIN s3cret\n");
    check(with(cert, bad()), &[("tls_cert", "is not a PEM file")]);
    check(
        with(cert, files.path("key.pem")),
        &[("tls_cert", "there is no certificate in")],
    );
    check(
        with(cert, files.path("none")),
        &[("tls_cert", "cannot read")],
    );
    check(with(key, bad()), &[("tls_key", "is not a PEM file")]);
    check(
        with(key, files.path("cert.pem")),
        &[("tls_key", "there is no private key in")],
    );
    check(
        with(key, files.path("ca.key")),
        &[("tls_key", "with `access.tls_cert`")],
    );
    let half = |section: &mut AccessSection, _| section.tls_key = None;
    check(with(half, bad()), &[("tls_key", "missing")]);
    let half = |section: &mut AccessSection, _| section.tls_cert = None;
    check(with(half, bad()), &[("tls_cert", "missing")]);
    let all = AccessSection {
        token: Some(Secret::new("s3cret".into())),
        tls_ca: Some(files.path("none")),
        ..with(cert, files.path("none"))
    };
    check(
        all,
        &[
            ("token", length),
            ("tls_cert", "cannot"),
            ("tls_ca", "cannot"),
        ],
    );
}

#[test]
fn a_token_is_accepted_whole_and_each_of_several() {
    let demands = demanding(&format!("{TOKEN}\r\n\n  another-{TOKEN}  "))
        .read()
        .unwrap();
    let check = |shown: &str, accepted: bool| {
        assert_eq!(demands.accepts(shown.as_bytes()), accepted, "{shown}");
    };
    assert!(demands.token());
    check(TOKEN, true);
    check(&format!("another-{TOKEN}"), true);
    check("", false);
    check(&TOKEN[..TOKEN.len() - 1], false);
    check(&format!("{TOKEN} "), false);
    check(&TOKEN.to_uppercase(), false);
    let none = AccessSection::default().read().unwrap();
    assert!(!none.token() && !none.accepts(b""));
}

#[test]
fn files_that_are_renewed_are_taken_up_and_faulty_ones_are_not() {
    let files = Files::new();
    let access = Access::open(AccessSection {
        token_file: Some(files.write("tokens", TOKEN)),
        ..files.tls()
    })
    .unwrap();
    let mut now = Monotonic(Duration::from_secs(9));
    let mut later = |access: &Access| {
        now = now.plus(RENEW_EVERY);
        access.step(now);
        access.demands()
    };
    access.step(Monotonic(Duration::from_secs(9)));
    let first = access.demands();
    assert!(Arc::ptr_eq(&first, &later(&access)), "nothing has changed");

    let other = format!("other-{TOKEN}");
    files.write("tokens", &format!("{TOKEN}\n{other}\n"));
    assert!(
        !access.demands().accepts(other.as_bytes()),
        "not before it is time"
    );
    let second = later(&access);
    assert!(second.accepts(TOKEN.as_bytes()) && second.accepts(other.as_bytes()));

    // One file of the pair is there before the other.
    let key = fs::read_to_string(files.path("key.pem")).unwrap();
    files.renew();
    let renewed = fs::read_to_string(files.path("key.pem")).unwrap();
    files.write("key.pem", &key);
    files.write("tokens", &other);
    assert!(
        Arc::ptr_eq(&second, &later(&access)),
        "a pair that does not fit"
    );
    files.write("key.pem", &renewed);
    let third = later(&access);
    assert!(!third.accepts(TOKEN.as_bytes()) && third.accepts(other.as_bytes()));
    assert!(!Arc::ptr_eq(
        second.server().unwrap(),
        third.server().unwrap()
    ));

    files.write("tokens", "");
    assert!(
        Arc::ptr_eq(&third, &later(&access)),
        "nobody is let in without a token"
    );
}
