//! What the ports demand of whoever connects: a token, TLS, or nothing; as the files say it at this moment.
//!
//! Tokens and certificates are renewed while readers stay connected. So the files are read again every few
//! seconds, and what they say is taken up as a whole: a connection is judged by what held when it was
//! accepted. A fault in a file that is renewed is told once, and what held before goes on holding.
//!
//! The same settings say how this process asks others: with its tokens, verifying their certificates.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use materializer_model::Monotonic;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use crate::config::{AccessSection, Secret};

/// How often the files are read again.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// The most tokens that are accepted at once: each is compared with what a client shows.
const TOKENS_MAX: usize = 8;
/// A token's least length: those that fewer characters make can be tried out.
const TOKEN_BYTES_MIN: usize = 16;
/// A token's greatest length, which bounds what is kept of a client before its login.
const TOKEN_BYTES_MAX: usize = 512;

impl AccessSection {
    /// Reads the files, and holds what they say to what can be used.
    ///
    /// # Errors
    /// Each fault by the key within `access`.
    pub(crate) fn read(&self) -> Result<Demands, Vec<(&'static str, String)>> {
        let mut faults = Vec::new();
        let mut or_fault = |key, fault: Option<String>| faults.extend(fault.map(|why| (key, why)));
        let (tokens, fault) = split(self.tokens());
        or_fault(self.token_key(), fault);
        let (shown, fault) = split(certificates(self.tls_cert.as_deref()));
        or_fault("tls_cert", fault);
        let (trusted, fault) = split(certificates(self.tls_ca.as_deref()));
        or_fault("tls_ca", fault);
        let server = match (shown.is_empty(), &self.tls_key) {
            (false, Some(key)) => {
                let (server, fault) = split(server(shown.clone(), key).map(Some));
                or_fault("tls_key", fault);
                server
            }
            (false, None) => {
                let why = "missing: `access.tls_cert` needs the file of its private key";
                or_fault("tls_key", Some(why.to_owned()));
                None
            }
            (true, Some(_)) if self.tls_cert.is_none() => {
                let why = "missing: `access.tls_key` needs the file of its certificate";
                or_fault("tls_cert", Some(why.to_owned()));
                None
            }
            (true, _) => None,
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        let authorities = if trusted.is_empty() { shown } else { trusted };
        Ok(Demands {
            tokens,
            server,
            authorities,
        })
    }

    fn token_key(&self) -> &'static str {
        if self.token_file.is_some() {
            "token_file"
        } else {
            "token"
        }
    }

    fn tokens(&self) -> Result<Vec<Token>, String> {
        let text = match (&self.token, &self.token_file) {
            (None, None) => return Ok(Vec::new()),
            (Some(token), None) => token.clone(),
            (_, Some(path)) => {
                let unread = |error| format!("cannot read `{}`: {error}", path.display());
                Secret::new(fs::read_to_string(path).map_err(unread)?)
            }
        };
        let lines = text.expose().lines().map(str::trim);
        let tokens: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        if tokens.is_empty() {
            return Err("there is no token in it".to_owned());
        }
        if tokens.len() > TOKENS_MAX {
            return Err(format!("more than {TOKENS_MAX} tokens"));
        }
        tokens.into_iter().map(Token::new).collect()
    }
}

/// Takes apart a value, which is its default where there is a fault instead.
fn split<T: Default>(read: Result<T, String>) -> (T, Option<String>) {
    match read {
        Ok(value) => (value, None),
        Err(why) => (T::default(), Some(why)),
    }
}

/// Reads the certificates of a PEM file; none where no file is named.
fn certificates(path: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|found| {
            (!found.is_empty())
                .then_some(found)
                .ok_or(pem::Error::NoItemsFound)
        });
    found.map_err(|error| not_pem(path, "certificate", &error))
}

/// Says what is wrong with a PEM file, and nothing of what is in it: that may be a key.
fn not_pem(path: &Path, wanted: &str, error: &pem::Error) -> String {
    let path = path.display();
    match error {
        pem::Error::Io(error) => format!("cannot read `{path}`: {error}"),
        pem::Error::NoItemsFound => format!("there is no {wanted} in `{path}`"),
        pem::Error::MissingSectionEnd { .. }
        | pem::Error::IllegalSectionStart { .. }
        | pem::Error::Base64Decode(_)
        | pem::Error::SectionTooLarge
        | _ => format!("`{path}` is not a PEM file"),
    }
}

/// Makes the side of TLS that shows a certificate, whose key is in a PEM file.
fn server(shown: Vec<CertificateDer<'static>>, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let found =
        PrivateKeyDer::from_pem_file(key).map_err(|error| not_pem(key, "private key", &error))?;
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what the default versions need")
        .with_no_client_auth()
        // It refuses a key that is not the certificate's.
        .with_single_cert(shown, found)
        .map_err(|error| format!("`{}` with `access.tls_cert`: {error}", key.display()))?;
    Ok(Arc::new(server))
}

/// A token, with what it is compared by.
struct Token {
    text: Secret,
    digest: [u8; 32],
}

impl Token {
    fn new(text: &str) -> Result<Self, String> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token is letters, digits and signs of ASCII, without spaces".to_owned());
        }
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) {
            return Err(format!(
                "a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} characters: make one with `openssl rand -hex 32`"
            ));
        }
        Ok(Self {
            text: Secret::new(text.to_owned()),
            digest: Sha256::digest(text).into(),
        })
    }
}

/// What is demanded at one moment.
pub(crate) struct Demands {
    tokens: Vec<Token>,
    server: Option<Arc<ServerConfig>>,
    authorities: Vec<CertificateDer<'static>>,
}

impl Demands {
    /// Says whether a client must show a token.
    pub(crate) fn token(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Says whether a token is one of those that are accepted. Takes the same time whichever it is, and
    /// however much of it is right: digests are compared, all of them and to their ends.
    pub(crate) fn accepts(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        let mut accepted = false;
        for token in &self.tokens {
            let pairs = token.digest.iter().zip(&shown);
            let differing = pairs.fold(0, |differing, (ours, theirs)| differing | (ours ^ theirs));
            accepted |= std::hint::black_box(differing) == 0;
        }
        accepted
    }

    /// Returns the side of TLS that accepts connections; `None` where they are in the clear.
    pub(crate) fn server(&self) -> Option<&Arc<ServerConfig>> {
        self.server.as_ref()
    }

    /// Returns the authorities by which other processes' certificates are verified.
    pub(crate) fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Returns what to show to another process: each token in turn until it accepts one, since it may have
    /// heard of a new one earlier or later.
    pub(crate) fn shown(&self) -> impl ExactSizeIterator<Item = &Secret> {
        self.tokens.iter().map(|token| &token.text)
    }
}

/// What the ports of this process demand, kept up to date with the files.
pub struct Access {
    section: AccessSection,
    demands: RwLock<Arc<Demands>>,
    renewal: Mutex<Renewal>,
}

/// What is known of the files since they were read last.
#[derive(Default)]
struct Renewal {
    at: Option<Monotonic>,
    /// The bytes of each file.
    seen: Vec<Option<Vec<u8>>>,
}

impl Access {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Each fault by its key.
    pub fn open(section: AccessSection) -> anyhow::Result<Self> {
        let renewal = Renewal {
            at: None,
            seen: section.bytes(),
        };
        let demands = section
            .read()
            .map_err(|faults| anyhow::anyhow!("{}", told(&faults)))?;
        Ok(Self {
            section,
            demands: RwLock::new(Arc::new(demands)),
            renewal: Mutex::new(renewal),
        })
    }

    /// Returns what is demanded now.
    pub(crate) fn demands(&self) -> Arc<Demands> {
        Arc::clone(&self.demands.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up what the files say, when it is time to look at them again.
    pub(crate) fn step(&self, now: Monotonic) {
        let mut renewal = self.renewal.lock().unwrap_or_else(PoisonError::into_inner);
        let last = *renewal.at.get_or_insert(now);
        if now.since(last) < RENEW_EVERY {
            return;
        }
        renewal.at = Some(now);
        let seen = self.section.bytes();
        if seen == renewal.seen {
            return;
        }
        renewal.seen = seen;
        match self.section.read() {
            Ok(demands) => {
                *self.demands.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(demands);
                info!(
                    "the files of `access` have changed: new connections are held to what they say"
                );
            }
            // Two files of a pair may be renewed one after the other: they are looked at again.
            Err(faults) => warn!(
                why = %told(&faults),
                "the files of `access` have changed and cannot be used: what they said before holds"
            ),
        }
    }
}

impl AccessSection {
    /// Returns the bytes of each file, `None` where there are none to be had.
    fn bytes(&self) -> Vec<Option<Vec<u8>>> {
        let files = [
            &self.token_file,
            &self.tls_cert,
            &self.tls_key,
            &self.tls_ca,
        ];
        let read = |path: &PathBuf| fs::read(path).ok();
        files
            .into_iter()
            .map(|path| path.as_ref().and_then(read))
            .collect()
    }
}

fn told(faults: &[(&'static str, String)]) -> String {
    let told = faults
        .iter()
        .map(|(key, why)| format!("`access.{key}`: {why}"));
    told.collect::<Vec<_>>().join("; ")
}

impl fmt::Debug for Demands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Demands")
            .field("tokens", &self.tokens.len())
            .field("tls", &self.server.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("section", &self.section)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
