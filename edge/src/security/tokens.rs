//! Which tokens are valid, and whose they are.
//!
//! The file has a line for each token: a name, and the token, or `sha256:` and the hexadecimal SHA-256 of it, so that the file
//! holds no secret. A name may stand there several times, so that a token can be replaced without a gap. `#` begins a comment.
//!
//! A token is looked up by its hash: how long that takes says nothing about any token.

use std::{collections::HashMap, fmt};

use sha2::{Digest, Sha256};

use super::{identity::Identity, lines};

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

/// All valid tokens.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<TokenDigest, Identity>);

impl Tokens {
    /// Reads a file of tokens.
    ///
    /// # Errors
    /// Something in it cannot be understood; names the line, and never the token.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        for (number, words) in lines(text)? {
            let [name, token] = words[..] else {
                return Err(format!("line {number} has {} words; it needs two, a name and a token", words.len()));
            };
            let identity = Identity::parse(name).map_err(|error| format!("line {number}: {error}"))?;
            let digest = digest(token).map_err(|error| format!("line {number}: the token of {identity}: {error}"))?;
            if let Some(other) = tokens.insert(digest, identity.clone()).filter(|other| *other != identity) {
                return Err(format!("line {number}: {identity} has the same token as {other}"));
            }
        }
        if tokens.is_empty() {
            return Err("it has no token; each line is a name and a token".to_owned());
        }
        Ok(Self(tokens))
    }

    /// Whose token it is, with what it is remembered by.
    pub fn find(&self, token: &str) -> Option<(TokenDigest, Identity)> {
        let digest = TokenDigest(Sha256::digest(token).into());
        self.0.get(&digest).map(|identity| (digest, identity.clone()))
    }

    /// Is it still valid, and the same one's?
    pub fn is_valid(&self, digest: TokenDigest, identity: &Identity) -> bool {
        self.0.get(&digest) == Some(identity)
    }
}

/// Is this what a token may be? Whoever shows one asks too, or would hear of it from a service that cannot say what is wrong.
///
/// # Errors
/// It is not; says what is allowed, and not what it is.
pub(super) fn check(token: &str) -> Result<(), String> {
    if !(MIN_BYTES..=MAX_BYTES).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("a token has {MIN_BYTES} to {MAX_BYTES} visible ASCII characters"));
    }
    Ok(())
}

fn digest(token: &str) -> Result<TokenDigest, String> {
    if let Some(hex) = token.strip_prefix("sha256:") {
        return from_hex(hex).map(TokenDigest).ok_or_else(|| "behind sha256: stand 64 hexadecimal digits".to_owned());
    }
    check(token)?;
    Ok(TokenDigest(Sha256::digest(token).into()))
}

fn from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() || !hex.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        let digits = &hex[2 * index..2 * index + 2];
        // A sign would be taken for a digit.
        *byte = u8::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    }
    Some(bytes)
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// What can be guessed is no token.
const MIN_BYTES: usize = 16;
/// Headers are limited.
const MAX_BYTES: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_its_hash_are_the_same_name_and_another_is_nobodys() {
        let hash: String = Sha256::digest("0123456789abcdef").iter().map(|byte| format!("{byte:02x}")).collect();
        let text =
            format!("# who  token\norders 0123456789abcdef # now\norders sha256:{hash}\nreports {}\n", "x".repeat(MAX_BYTES));
        let tokens = Tokens::parse(&text).expect("allowed");
        let (digest, identity) = tokens.find("0123456789abcdef").expect("valid");
        assert_eq!(identity.name(), "orders");
        assert_eq!(tokens.find(&"x".repeat(MAX_BYTES)).map(|(_, identity)| identity.to_string()).as_deref(), Some("reports"));
        assert!(tokens.find("0123456789abcdeg").is_none() && tokens.find("").is_none());
        assert!(tokens.is_valid(digest, &identity));
        let replaced = Tokens::parse("orders fedcba9876543210").expect("allowed");
        assert!(!replaced.is_valid(digest, &identity));
        let given_away = Tokens::parse("reports 0123456789abcdef").expect("allowed");
        assert!(!given_away.is_valid(digest, &identity), "another one's now");
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_named_and_its_token_is_not() {
        let long = "x".repeat(MAX_BYTES + 1);
        for (text, said) in [
            ("", "no token"),
            ("# nobody\n", "no token"),
            ("a s3cret-0123456789\nb", "line 2 has 1 words"),
            ("a s3cret-0123456789 c", "line 1 has 3 words"),
            ("a s3cret-01234567", "16 to 1024"),
            ("a sha256:s3cret", "sha256:"),
            ("a* s3cret-0123456789", "no name"),
            ("a s3cret-0123456789\nb s3cret-0123456789", "line 2: b has the same token as a"),
            (&format!("a {long}"), "1024"),
            ("a sha256:+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1", "sha256:"),
        ] {
            let error = Tokens::parse(text).expect_err(text);
            assert!(error.contains(said), "{text:?}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_token_of_sixteen_characters_is_the_shortest() {
        assert!(Tokens::parse("a 0123456789abcdef").is_ok());
        assert!(Tokens::parse("a 0123456789abcde").is_err());
    }

    #[test]
    fn nothing_of_a_token_is_shown() {
        let tokens = Tokens::parse("a s3cret-0123456789").expect("allowed");
        assert_eq!(format!("{tokens:?}"), "Tokens({TokenDigest(…): \"a\"})");
    }
}
