//! Proves to a webhook that a body is ours: Standard Webhooks (<https://www.standardwebhooks.com>), or GitHub's header.

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use detectors::event::time::{Nanos, SECOND};
use hmac::{Hmac, Mac as _};
use reqwest::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use crate::sink::transport::hex;
use crate::units::Secret;

/// A signature over each body.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `style` and `secret`")]
pub(crate) struct Sign {
    /// How it is written.
    #[serde(default)]
    pub(crate) style: Style,
    /// The secret that both sides know; what follows `whsec_` is base64.
    pub(crate) secret: Secret,
    /// `standard`: the secret before this one. While it stands here, each body is signed with both.
    pub(crate) previous: Option<Secret>,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Style {
    /// Headers `webhook-id`, `webhook-timestamp` and `webhook-signature`. A repeated request has the same id.
    #[default]
    Standard,
    /// Header `X-Hub-Signature-256`.
    Github,
}

/// The secrets, as bytes; the newest first.
pub(super) struct Keys {
    style: Style,
    secrets: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Sign {
    pub(super) fn keys(&self) -> Result<Keys> {
        if self.style == Style::Github && self.previous.is_some() {
            bail!("sign.previous: style `github` has one signature: leave `previous` out");
        }
        let mut secrets = vec![bytes(&self.secret).context("sign.secret")?];
        if let Some(previous) = &self.previous {
            secrets.push(bytes(previous).context("sign.previous")?);
        }
        Ok(Keys { style: self.style, secrets })
    }
}

fn bytes(secret: &Secret) -> Result<Vec<u8>> {
    let text = secret.reveal()?;
    let bytes = match text.strip_prefix("whsec_") {
        // The decoder's error would show a part of the secret.
        Some(encoded) => {
            STANDARD.decode(encoded).map_err(|_| anyhow!("what follows `whsec_` is no base64"))?
        }
        None => text.into_bytes(),
    };
    if bytes.is_empty() {
        bail!("the secret is empty");
    }
    Ok(bytes)
}

impl Keys {
    /// The headers that go with a body.
    pub(super) fn headers(
        &self,
        uuid: Uuid,
        now: Nanos,
        body: &[u8],
    ) -> Result<Vec<(HeaderName, HeaderValue)>> {
        match self.style {
            Style::Standard => {
                let id = format!("msg_{uuid}");
                let timestamp = (now / SECOND).to_string();
                let signatures: Vec<_> = self
                    .secrets
                    .iter()
                    .map(|secret| {
                        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
                        format!("v1,{}", STANDARD.encode(digest(secret, &parts)))
                    })
                    .collect();
                Ok(vec![
                    (HeaderName::from_static("webhook-id"), HeaderValue::from_str(&id)?),
                    (HeaderName::from_static("webhook-timestamp"), HeaderValue::from_str(&timestamp)?),
                    (
                        HeaderName::from_static("webhook-signature"),
                        HeaderValue::from_str(&signatures.join(" "))?,
                    ),
                ])
            }
            Style::Github => {
                let secret = self.secrets.first().map(Vec::as_slice).unwrap_or_default();
                let signature = format!("sha256={}", hex(&digest(secret, &[body])));
                Ok(vec![(HeaderName::from_static("x-hub-signature-256"), HeaderValue::from_str(&signature)?)])
            }
        }
    }
}

fn digest(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of HMAC may have any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(yaml: &str, body: &[u8]) -> Vec<(String, String)> {
        let sign: Sign = yaml_serde::from_str(yaml).unwrap();
        let uuid = Uuid::parse_str("6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a").unwrap();
        let headers = sign.keys().unwrap().headers(uuid, 1_674_087_231 * SECOND, body).unwrap();
        headers
            .into_iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect()
    }

    /// RFC 4231, test cases 1 and 2; and GitHub's example of its documentation.
    #[test]
    fn digests() {
        for (secret, body, expected) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                b"It's a Secret to Everybody",
                b"Hello, World!",
                "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            ),
        ] {
            assert_eq!(hex(&digest(secret, &[body])), expected);
        }
    }

    /// The signed content and the secret are decoded here by hand: `openssl dgst -sha256 -mac HMAC` gives the same.
    #[test]
    fn standard_webhooks() {
        let headers = headers("{secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}", br#"{"test": 2432232314}"#);
        assert_eq!(headers[0], ("webhook-id".into(), "msg_6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a".into()));
        assert_eq!(headers[1], ("webhook-timestamp".into(), "1674087231".into()));
        assert_eq!(
            headers[2],
            ("webhook-signature".into(), "v1,f40C327VkgJotjFt6gyaVtPfQdt5LJvgf5oWmAEEM8A=".into())
        );
    }

    #[test]
    fn two_secrets_while_one_is_replaced() {
        let headers = headers("{secret: new, previous: old}", b"{}");
        let signatures: Vec<_> = headers[2].1.split(' ').collect();
        assert_eq!(signatures.len(), 2);
        assert_ne!(signatures[0], signatures[1]);
        assert!(signatures.iter().all(|signature| signature.starts_with("v1,")));
    }

    #[test]
    fn github() {
        let headers = headers("{style: github, secret: \"It's a Secret to Everybody\"}", b"Hello, World!");
        let expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(headers, [("x-hub-signature-256".into(), expected.into())]);
    }

    #[test]
    fn mistakes_do_not_show_the_secret() {
        for yaml in [
            "{secret: whsec_hunter2!}",
            "{secret: ''}",
            "{style: github, secret: hunter2, previous: hunter2}",
        ] {
            let sign: Sign = yaml_serde::from_str(yaml).unwrap();
            let error = format!("{:#}", sign.keys().unwrap_err());
            assert!(error.starts_with("sign.") && !error.contains("hunter2"), "{error}");
        }
    }
}
