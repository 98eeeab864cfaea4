//! The settings of what the ports demand, and of where this process is reached.
//!
//! Which files there are is said here; what is in them is read by [`crate::access`], at the start and again.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Secret;
use super::section::{Report, Section, boolean};
use super::tree::Node;

/// What the two ports demand of whoever connects, and how this process asks others.
#[derive(Clone, Debug, Default)]
pub struct AccessSection {
    /// The token.
    pub token: Option<Secret>,
    /// A file of tokens, one a line, each of which is accepted.
    pub token_file: Option<PathBuf>,
    /// The file of the certificate that is shown, with what leads to its authority.
    pub tls_cert: Option<PathBuf>,
    /// The file of its private key.
    pub tls_key: Option<PathBuf>,
    /// The file of the authorities by which other processes' certificates are verified; where there is
    /// none, by the certificates of `tls_cert`.
    pub tls_ca: Option<PathBuf>,
    /// Whether whoever reaches a port may read.
    pub open: bool,
}

impl AccessSection {
    /// Says whether a token is demanded.
    #[must_use]
    pub fn demands_token(&self) -> bool {
        self.token.is_some() || self.token_file.is_some()
    }

    /// Says whether the ports speak TLS.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        self.tls_cert.is_some() || self.tls_key.is_some()
    }

    /// Says whether a port may listen here.
    ///
    /// # Errors
    /// Where other machines could reach it, and nothing is demanded of them.
    pub(super) fn guard(&self, address: SocketAddr) -> Result<(), String> {
        let guarded = self.open || self.demands_token() || self.speaks_tls();
        if guarded || is_local(address) {
            return Ok(());
        }
        Err(format!(
            "other machines reach `{address}`, and nothing is demanded of them: set `access.token_file`, \
             or `access.tls_cert` and `access.tls_key`, or `access.open: true` if whoever reaches it may \
             read, or listen on `127.0.0.1`"
        ))
    }
}

/// Says whether an address is reached from this machine alone.
#[must_use]
pub(crate) fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Reads the group `access`. The files that it names must be fit for use.
pub(super) fn read(node: Option<&Node>, report: &Report<'_>) -> AccessSection {
    let mut section = Section::new("access", node, report);
    let mut path = |key| section.text(key).map(PathBuf::from);
    let [token_file, tls_cert, tls_key, tls_ca] =
        ["token_file", "tls_cert", "tls_key", "tls_ca"].map(&mut path);
    let access = AccessSection {
        token: section
            .text("token")
            .map(|text| Secret::new(text.to_owned())),
        token_file,
        tls_cert,
        tls_key,
        tls_ca,
        open: section.read("open", boolean).unwrap_or(false),
    };
    if access.token.is_some() && access.token_file.is_some() {
        section.fault(
            "token_file",
            "`access.token` is set as well: one of the two",
        );
    } else if let Err(faults) = access.read() {
        for (key, why) in faults {
            section.fault(key, why);
        }
    }
    section.finish();
    access
}

/// Reads where other processes reach this one.
pub(super) fn place(text: &str) -> Result<String, String> {
    let schemes = ["http://", "https://"];
    let bare = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    let (host, port) = bare.unwrap_or(text).rsplit_once(':').unwrap_or_default();
    let of_host = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
    if !host.is_empty() && host.chars().all(of_host) && port.parse::<u16>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is not a host with a port, as in `worker-0.example:8080`"
    ))
}
