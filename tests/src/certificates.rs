//! A certificate authority of a test, and the certificates that it signs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use breaker_user::fleet::engine::Tls;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};

/// A certificate authority, and the directory of its files.
pub struct Authority {
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    /// Makes an authority with its certificate in `NAME.ca.pem`.
    pub fn new(directory: &Path, name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("signing a certificate");
        let authority = Self { name: name.to_owned(), issuer, directory: directory.to_owned() };
        std::fs::write(authority.file(&format!("{name}.ca.pem")), authority.issuer.pem()).expect("writing");
        authority
    }

    /// A certificate for a server at an address, or for a client with a user's name.
    pub fn sign(&self, name: &str, address: Option<IpAddr>) -> Tls {
        self.write(name, params(name, &addresses(address)))
    }

    /// A certificate that ended years ago.
    pub fn sign_expired(&self, name: &str, address: Option<IpAddr>) -> Tls {
        let mut params = params(name, &addresses(address));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.write(name, params)
    }

    fn write(&self, name: &str, params: CertificateParams) -> Tls {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("signing a certificate");
        let files = Tls {
            ca: self.file(&format!("{}.ca.pem", self.name)),
            cert: self.file(&format!("{name}.pem")),
            key: self.file(&format!("{name}.key")),
        };
        std::fs::write(&files.cert, certificate.pem()).expect("writing a certificate");
        std::fs::write(&files.key, key.serialize_pem()).expect("writing a key");
        files
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("making a key")
}

fn addresses(address: Option<IpAddr>) -> Vec<String> {
    address.iter().map(IpAddr::to_string).collect()
}

/// A server's certificate has an address, and etcd also uses it as a client.
fn params(name: &str, addresses: &[String]) -> CertificateParams {
    let mut params = CertificateParams::new(addresses).expect("an address");
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}
