//! Whether a server's certificate is trusted, for its name, and good for some time yet.
//!
//! Only the handshake is made, and what a protocol says before it where TLS does not come first; what is spoken over the connection is the concern of the kinds that speak it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_rustls::TlsConnector;
use x509_parser::parse_x509_certificate;

use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::net::{Address, Net};
use crate::node::limit::{Findings, Levels};
use crate::settings::TlsFiles;
use crate::starttls::Starttls;
use crate::tls::{Tls as Files, provider};

const DAY: u64 = 24 * 60 * 60;

/// Whether a server's certificate is trusted, for its name, and good for some time yet.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Host and port, as in `example.org:443` or `[::1]:443`.
    address: String,
    /// The name that the certificate must be for, where it is not the address's host.
    name: Option<String>,
    /// The protocol, where it is one that begins without TLS.
    starttls: Option<Starttls>,
    /// For how many days it must still be good: a number warns, and `{ warn = 21, fail = 7 }` does both. What counts is the
    /// first certificate to end of those that trust in it rests on.
    #[serde(default = "days_left")]
    days_left: Levels<u32>,
    /// Whom to trust, and who this side is.
    #[serde(default, rename = "tls")]
    files: TlsFiles,
}

fn days_left() -> Levels<u32> {
    Levels { warn: Some(21), fail: Some(7) }
}

impl Settings for Tls {
    const KIND: &'static str = "tls";
    const EXAMPLE: &'static str = "address = \"example.org:443\"\ndays_left = { warn = 21, fail = 7 }";
    const CONTRACT: Contract = Contract::Peer("address = \"{peer}\"");
    const MORE_CONTRACTS: &'static [&'static str] =
        &["address = \"{peer}\"\nstarttls = \"smtp\"", "address = \"{peer}\"\nstarttls = \"postgres\""];
    type Check = TlsCheck;

    fn build(self) -> Result<TlsCheck, Vec<Mistake>> {
        let mut mistakes = Files::mistakes(&self.files);
        let address = Address::parse(&self.address);
        if address.is_none() {
            mistakes.push(Mistake::of("address", Address::MISTAKE));
        }
        let host = self.name.clone().or_else(|| address.as_ref().map(|address| address.host.clone()));
        let name = host.map(ServerName::try_from);
        if matches!(name, Some(Err(_))) {
            let key = if self.name.is_some() { "name" } else { "address" };
            mistakes.push(Mistake::of(key, "no certificate can be for this name"));
        }
        mistakes.extend(self.days_left.mistakes("days_left", false, (0, u32::MAX), ""));
        match (address, name) {
            (Some(address), Some(Ok(name))) if mistakes.is_empty() => Ok(TlsCheck {
                address,
                name,
                starttls: self.starttls,
                days_left: self.days_left,
                files: Files::new(self.files),
                net: Net::default(),
            }),
            _ => Err(mistakes),
        }
    }
}

/// Shakes hands, and judges what it was shown.
#[derive(Debug)]
pub struct TlsCheck {
    address: Address,
    name: ServerName<'static>,
    starttls: Option<Starttls>,
    days_left: Levels<u32>,
    files: Files,
    net: Net,
}

#[async_trait::async_trait]
impl Check for TlsCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let mut config = ClientConfig::clone(&*self.files.config()?);
        let roots = self.files.roots()?;
        // A session that is resumed shows no certificate; and a certificate that is refused could not be looked at.
        config.resumption = Resumption::disabled();
        config.dangerous().set_certificate_verifier(Arc::new(Later(provider())));
        let mut stream = self.net.connect(&self.address, deadline).await?;
        if let Some(starttls) = self.starttls {
            let disagrees = |error| Failure::failed("the server does not begin TLS").because(error);
            starttls.begin(&mut stream, "checker.invalid").await.map_err(disagrees)?;
        }
        let stream = TlsConnector::from(Arc::new(config))
            .connect(self.name.clone(), stream)
            .await
            .map_err(|error| Failure::failed("the handshake of TLS fails").because(error))?;
        let (_, connection) = stream.get_ref();
        let chain = connection.peer_certificates().unwrap_or_default();
        let judge = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| Failure::unknown("nobody is trusted").because(error))?;
        self.judge(chain, &judge, UnixTime::now())
    }
}

impl TlsCheck {
    fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        judge: &WebPkiServerVerifier,
        now: UnixTime,
    ) -> Result<(), Failure> {
        let Some((certificate, others)) = chain.split_first() else {
            return Err(Failure::failed("the server shows no certificate"));
        };
        let at = |time| judge.verify_server_cert(certificate, others, &self.name, &[], time);
        at(now).map_err(why)?;
        // Chains may hold more than trust needs. It rests until the latest of their ends at which it still stands.
        let ends = chain.iter().filter_map(end).filter(|end| at(UnixTime::since_unix_epoch(*end)).is_ok());
        let Some(end) = ends.max() else {
            return Err(Failure::failed("the certificate does not say until when it is good"));
        };
        let left = end.as_secs().saturating_sub(now.as_secs()) / DAY;
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let mut findings = Findings::default();
        findings.add(self.days_left.below(left), |level| {
            format!("the certificate is good for {left} days (limit {level})")
        });
        findings.answer()
    }
}

/// The last moment at which a certificate is good.
fn end(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok().map(Duration::from_secs)
}

fn why(error: Error) -> Failure {
    let reason = match &error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate is not valid yet"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate is for another name"
            }
            CertificateError::UnknownIssuer => "the certificate's issuer is not trusted",
            _ => "the certificate is not valid",
        },
        _ => "the certificate is not valid",
    };
    Failure::failed(reason).because(error)
}

/// Accepts every certificate, because it is judged once the handshake is over; but not that somebody shows one without
/// having its key.
#[derive(Debug)]
struct Later(Arc<CryptoProvider>);

impl ServerCertVerifier for Later {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_settings_are_mistakes() {
        let keys = |json: &str| {
            let settings: Tls = serde_json::from_str(json).unwrap();
            let mistakes = settings.build().map_or_else(|mistakes| mistakes, |_| Vec::new());
            mistakes.into_iter().filter_map(|mistake| mistake.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(r#"{"address": "127.0.0.1:443", "name": "example.org"}"#), Vec::<&str>::new());
        assert_eq!(keys(r#"{"address": "example.org"}"#), ["address"]);
        assert_eq!(keys(r#"{"address": "a_b$:443"}"#), ["address"]);
        let json = r#"{"address": "a:1", "name": "a b", "days_left": {"warn": 7, "fail": 21}, "tls": {"key": "/x"}}"#;
        assert_eq!(keys(json), ["tls", "name", "days_left"]);
    }
}
