//! Who this side is: SASL's PLAIN, and SCRAM with SHA-256 or SHA-512 (RFC 5802, 7677), as Kafka takes them.
//!
//! Kafka takes a user and a password as they are, where the RFC wants them prepared (SASLprep): so does this.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::{digest, hmac, pbkdf2};
use schemars::JsonSchema;
use serde::Deserialize;

use super::line::{Line, NO_BROKER};
use super::message::{Request, read_authenticate, read_handshake};
use crate::check::Failure;
use crate::settings::Secret;

/// How often a password is hashed: Kafka's own limits (4,096 and 16,384), and some room above. What a broker asks for takes this side's time.
const ROUNDS: std::ops::RangeInclusive<u32> = 4_096..=65_536;

/// Who logs in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// How the password is proven. `PLAIN` shows it to the broker, and without TLS to everybody on the way.
    mechanism: Mechanism,
    /// The user's name.
    user: String,
    /// The user's password.
    password: Secret,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[schemars(inline)]
enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        })
    }
}

/// Why there was no login.
#[derive(Debug)]
pub enum Denied {
    /// It is wrong, at this broker and at every other.
    Everywhere(Failure),
    /// This broker did not keep to the protocol.
    Here(Failure),
}

impl From<Failure> for Denied {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

impl Login {
    /// What is wrong with it.
    pub fn mistake(&self) -> Option<&'static str> {
        let (user, password) = (&self.user, self.password.expose());
        if user.is_empty() || password.is_empty() {
            return Some("the user or the password is empty");
        }
        let nul = user.contains('\0') || password.contains('\0');
        nul.then_some("no user and no password can have a NUL in it")
    }

    pub async fn log_in(&self, line: &mut Line) -> Result<(), Denied> {
        let answer = line.ask(&Request::handshake(&self.mechanism.to_string())).await?;
        match read_handshake(&answer).map_err(|_| no_broker())? {
            Ok(()) => {}
            Err(33) => {
                let reason = format!("the broker does not offer the mechanism {}", self.mechanism);
                return Err(Denied::Everywhere(Failure::failed(reason)));
            }
            Err(34) => return Err(Denied::Everywhere(Failure::failed("the broker takes no login here"))),
            Err(code) => return Err(Denied::Here(refused(code))),
        }
        match self.mechanism {
            Mechanism::Plain => {
                let words = format!("\0{}\0{}", self.user, self.password.expose());
                say(line, words.as_bytes()).await.map(drop)
            }
            Mechanism::ScramSha256 => self.scram(line, &SHA256).await,
            Mechanism::ScramSha512 => self.scram(line, &SHA512).await,
        }
    }

    async fn scram(&self, line: &mut Line, hash: &'static Hash) -> Result<(), Denied> {
        let scram = Scram { hash, user: self.user.clone(), nonce: nonce()? };
        let told = say(line, format!("n,,{}", scram.first()).as_bytes()).await?;
        let password = self.password.clone();
        // Milliseconds, by what the broker asks for.
        let proven = tokio::task::spawn_blocking(move || scram.prove(password.expose(), &told));
        let proof = proven
            .await
            .map_err(|error| Failure::unknown("the password could not be proven").because(error))?
            .ok_or_else(no_broker)?;
        let told = say(line, proof.words.as_bytes()).await?;
        if proof.is_known_to(&told) {
            Ok(())
        } else {
            Err(Denied::Everywhere(Failure::failed("the broker does not know the password itself")))
        }
    }
}

/// One step of a login.
async fn say(line: &mut Line, words: &[u8]) -> Result<Vec<u8>, Denied> {
    let answer = line.ask(&Request::authenticate(words)).await?;
    match read_authenticate(&answer).map_err(|_| no_broker())? {
        Ok(told) => Ok(told.to_vec()),
        Err(58) => Err(Denied::Everywhere(Failure::failed("the user or the password is refused"))),
        Err(code) => Err(Denied::Here(refused(code))),
    }
}

fn refused(code: i16) -> Failure {
    Failure::failed("the broker refuses the login").because(format!("error {code}"))
}

fn no_broker() -> Failure {
    Failure::failed(NO_BROKER).because("a login that is none")
}

fn nonce() -> Result<String, Failure> {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::unknown("there is no randomness to log in with").because(error))?;
    Ok(BASE64_STANDARD.encode(bytes))
}

struct Hash {
    hmac: hmac::Algorithm,
    digest: &'static digest::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

static SHA256: Hash =
    Hash { hmac: hmac::HMAC_SHA256, digest: &digest::SHA256, pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256 };
static SHA512: Hash =
    Hash { hmac: hmac::HMAC_SHA512, digest: &digest::SHA512, pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512 };

/// The client's side of SCRAM, in the RFC's words.
struct Scram {
    hash: &'static Hash,
    user: String,
    nonce: String,
}

/// What proves the password to the broker, and the broker to this side.
struct Proof {
    words: String,
    key: hmac::Key,
    message: String,
}

impl Scram {
    fn first(&self) -> String {
        let user = self.user.replace('=', "=3D").replace(',', "=2C");
        format!("n={user},r={}", self.nonce)
    }

    /// Nothing where the broker's words are not those of SCRAM.
    fn prove(&self, password: &str, told: &[u8]) -> Option<Proof> {
        let told = std::str::from_utf8(told).ok()?;
        let mut parts = told.split(',');
        let nonce = parts.next()?.strip_prefix("r=").filter(|nonce| nonce.starts_with(&self.nonce))?;
        let salt = BASE64_STANDARD.decode(parts.next()?.strip_prefix("s=")?).ok()?;
        let rounds: u32 = parts.next()?.strip_prefix("i=")?.parse().ok()?;
        let rounds = ROUNDS.contains(&rounds).then_some(rounds)?.try_into().ok()?;
        let mut salted = vec![0; self.hash.digest.output_len()];
        pbkdf2::derive(self.hash.pbkdf2, rounds, &salt, password.as_bytes(), &mut salted);
        let salted = hmac::Key::new(self.hash.hmac, &salted);
        let words = format!("c=biws,r={nonce}");
        let message = format!("{},{told},{words}", self.first());
        let client = hmac::sign(&salted, b"Client Key");
        let stored =
            hmac::Key::new(self.hash.hmac, digest::digest(self.hash.digest, client.as_ref()).as_ref());
        let signed = hmac::sign(&stored, message.as_bytes());
        let proof: Vec<u8> =
            client.as_ref().iter().zip(signed.as_ref()).map(|(key, sign)| key ^ sign).collect();
        let words = format!("{words},p={}", BASE64_STANDARD.encode(proof));
        let key = hmac::Key::new(self.hash.hmac, hmac::sign(&salted, b"Server Key").as_ref());
        Some(Proof { words, key, message })
    }
}

impl Proof {
    /// Whether the broker's last words could only be said by one that knows the password.
    fn is_known_to(&self, told: &[u8]) -> bool {
        let signed = told.strip_prefix(b"v=").and_then(|signed| {
            let signed = signed.split(|byte| *byte == b',').next()?;
            BASE64_STANDARD.decode(signed).ok()
        });
        signed.is_some_and(|signed| hmac::verify(&self.key, self.message.as_bytes(), &signed).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(hash: &'static Hash, nonce: &str, told: &str) -> Option<Proof> {
        let scram = Scram { hash, user: "user".to_owned(), nonce: nonce.to_owned() };
        scram.prove("pencil", told.as_bytes())
    }

    /// The example of RFC 7677.
    #[test]
    fn a_password_is_proven_as_the_rfc_shows_it() {
        let nonce = "rOprNGfwEbeRWgbNEkqO";
        let told = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let proof = proof(&SHA256, nonce, told).unwrap();
        assert_eq!(
            proof.words,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(proof.is_known_to(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        for wrong in ["", "v=", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=", "e=other-error"] {
            assert!(!proof.is_known_to(wrong.as_bytes()), "{wrong}");
        }
    }

    /// Made by Python's `hashlib` and `hmac`.
    #[test]
    fn a_password_is_proven_with_the_longer_hash_too() {
        let nonce = "rOprNGfwEbeRWgbNEkqO";
        let told = "r=rOprNGfwEbeRWgbNEkqOx7,s=c2FsdCBvZiB0aGUgdGVzdHM=,i=4096";
        let proof = proof(&SHA512, nonce, told).unwrap();
        assert_eq!(
            proof.words,
            "c=biws,r=rOprNGfwEbeRWgbNEkqOx7,p=WBtZPnW2aDyR2N9+n3g8G1GxBcIrbVDJOb7J8fcEZ8MgsEfGPnkRwIBat65j7WoS1zAoeYThmsqmeO7P22u1Pg=="
        );
        let told =
            "v=K/8cxSeHO4KwRGcSAJyqZ/urlf2dFX3H1+W1J1N7lmxRGV62+gXdSGPnu5BtdsKnpnaTf0rXtRjMx9I66auuSQ==";
        assert!(proof.is_known_to(told.as_bytes()));
    }

    #[test]
    fn what_takes_long_or_gives_the_password_away_is_not_done() {
        let told =
            |rounds: &str, nonce: &str| proof(&SHA256, "mine", &format!("r={nonce},s=c2FsdA==,i={rounds}"));
        assert!(told("4096", "mine+its").is_some());
        for (rounds, nonce) in [
            ("4095", "mine+its"),
            ("1", "mine+its"),
            ("65537", "mine+its"),
            ("4294967295", "mine+its"),
            ("-1", "mine+its"),
            ("4096", "its"),
            ("4096", ""),
        ] {
            assert!(told(rounds, nonce).is_none(), "{rounds} {nonce}");
        }
        for told in
            ["", "r=mine", "r=mine,s=?,i=4096", "r=mine,i=4096,s=c2FsdA==", "m=x,r=mine,s=c2FsdA==,i=4096"]
        {
            assert!(proof(&SHA256, "mine", told).is_none(), "{told}");
        }
        assert!(
            Scram { hash: &SHA256, user: "mine".to_owned(), nonce: "mine".to_owned() }
                .prove("", &[0xff])
                .is_none()
        );
    }

    #[test]
    fn a_name_is_written_so_that_it_ends_where_it_ends() {
        let scram = Scram { hash: &SHA256, user: "a,r==b".to_owned(), nonce: "mine".to_owned() };
        assert_eq!(scram.first(), "n=a=2Cr=3D=3Db,r=mine");
        let [one, other] = [nonce().unwrap(), nonce().unwrap()];
        assert!(one != other && !one.contains(',') && one.len() == 24, "{one} {other}");
    }
}
