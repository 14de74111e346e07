//! The section `api`.

use std::path::{Path, PathBuf};

use super::super::raw::Raw;
use super::super::{Api, ConfigError, Wrong};
use super::{address, given};

pub(super) fn api(raw: &Raw, store: &Path, wrong: &Wrong<'_>) -> Result<Api, ConfigError> {
    let api = &raw.api;
    let listen = given(&api.listen).map(|text| address("api.listen", text, 9465, wrong)).transpose()?;
    let tls = match (given(&api.tls_cert), given(&api.tls_key)) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
        (Some(_), None) => return Err(wrong("api.tls_cert", "it needs api.tls_key beside it")),
        (None, Some(_)) => return Err(wrong("api.tls_key", "it needs api.tls_cert beside it")),
    };
    if listen.is_some_and(|address| !address.ip().is_loopback()) && tls.is_none() && !api.behind_tls_proxy {
        let why = "an address other than loopback needs api.tls_cert and api.tls_key, or behind_tls_proxy = true";
        return Err(wrong("api.listen", why));
    }
    Ok(Api {
        socket: given(&api.socket).map_or_else(|| store.join("callbackd.sock"), PathBuf::from),
        listen,
        tls,
        hosts: api.hosts.clone(),
    })
}
