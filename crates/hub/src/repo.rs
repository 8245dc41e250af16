//! What a model is called.

use std::fmt;

use crate::Error;

/// The name of a model's repository on the Hub: OWNER/NAME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo(String);

impl Repo {
    /// The longest that the Hub allows.
    const LONGEST: usize = 96;

    /// Of a name as the Hub has them: two parts of letters, digits, `-`, `_` and `.`, which neither begin nor end with `-` or `.`,
    /// without `--` and `..`. So it is safe in paths and addresses.
    ///
    /// # Errors
    /// [`Error::Name`] for any other.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let part = |part: &str| {
            !part.is_empty() && part.chars().all(fits) && !part.starts_with(['-', '.']) && !part.ends_with(['-', '.'])
        };
        let doubled = name.contains("--") || name.contains("..");
        match name.split_once('/') {
            Some((owner, model)) if part(owner) && part(model) && !doubled && name.len() <= Self::LONGEST => {
                Ok(Self(name.to_owned()))
            }
            _ => Err(Error::Name { name: name.to_owned() }),
        }
    }

    /// Its folder in the cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_hub_and_safe_in_paths() {
        let repo = Repo::parse("mistralai/Voxtral-Mini-4B-Realtime-2602").unwrap();
        assert_eq!(repo.folder(), "models--mistralai--Voxtral-Mini-4B-Realtime-2602");
        for name in
            ["", "a", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a/.b", "a/b--c", "a/b c", "a/b?c", "ä/b", "-a/b"]
        {
            assert!(Repo::parse(name).is_err(), "{name}");
        }
        assert!(Repo::parse(&format!("a/{}", "b".repeat(95))).is_err());
    }
}
