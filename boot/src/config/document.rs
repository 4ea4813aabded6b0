//! A TOML document whose values know their place. `Section` reads them by key; its errors name
//! file, line and key.

use super::duration;
use crate::size;
use kernel::addr::PAGE_SIZE;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// An error in a configuration, and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    file: String,
    line: Option<usize>,
    key: Option<String>,
    message: String,
}

impl ConfigError {
    /// Makes an error about the file as a whole.
    pub fn file(path: &Path, message: &str) -> Self {
        Self {
            file: path.display().to_string(),
            line: None,
            key: None,
            message: message.to_owned(),
        }
    }

    /// Makes an error about a line of the file, without a key.
    pub fn line(path: &Path, line: usize, message: &str) -> Self {
        Self {
            file: path.display().to_string(),
            line: Some(line),
            key: None,
            message: message.to_owned(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if let Some(key) = &self.key {
            write!(f, " {key}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

struct Text<'t> {
    name: &'t str,
    text: &'t str,
}

impl Text<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|&&b| b == b'\n').count()
    }
}

/// A parsed document.
pub(super) struct Document<'t> {
    text: Text<'t>,
    table: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    /// Parses `text`; `name` is the file's name in errors.
    ///
    /// # Errors
    /// Where it is no TOML.
    pub(super) fn parse(name: &'t str, text: &'t str) -> Result<Self, ConfigError> {
        let place = Text { name, text };
        let table = DeTable::parse(text).map_err(|e| ConfigError {
            file: name.to_owned(),
            line: e.span().map(|span| place.line(span.start)),
            key: None,
            message: e.message().to_owned(),
        })?;
        Ok(Self { text: place, table })
    }

    /// Returns the section of the top-level keys.
    pub(super) fn root(&self) -> Section<'_> {
        Section { text: &self.text, path: String::new(), table: self.table.get_ref(), at: 0..0 }
    }
}

/// A table of a document.
pub(super) struct Section<'d> {
    text: &'d Text<'d>,
    path: String,
    table: &'d DeTable<'d>,
    at: Range<usize>,
}

impl<'d> Section<'d> {
    /// Returns an error about `key`, at its line, or at the section's where the key is missing.
    pub(super) fn error(&self, key: &str, message: &str) -> ConfigError {
        let at = self.table.get_key_value(key).map_or(self.at.start, |(key, _)| key.span().start);
        ConfigError {
            file: self.text.name.to_owned(),
            line: Some(self.text.line(at)),
            key: Some(self.name(key)),
            message: message.to_owned(),
        }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn wrong_type(&self, key: &str, value: &DeValue<'_>, wanted: &str) -> ConfigError {
        self.error(key, &format!("must be {wanted}, not {}", value.type_str()))
    }

    /// Checks that the section has no other keys.
    ///
    /// # Errors
    /// Names the first key that is not among `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        let unknown =
            self.table.keys().map(Spanned::get_ref).find(|key| !known.contains(&key.as_ref()));
        unknown.map_or(Ok(()), |key| {
            Err(self.error(key, &format!("unknown key (known: {})", known.join(", "))))
        })
    }

    fn get(&self, key: &str) -> Option<&'d DeValue<'d>> {
        self.table.get(key).map(Spanned::get_ref)
    }

    /// Returns a text.
    ///
    /// # Errors
    /// Where it is something else.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'d str>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong_type(key, value, "text in quotes"))
    }

    /// Returns a text that is required.
    ///
    /// # Errors
    /// Where it is missing, empty, or something else.
    pub(super) fn required_text(&self, key: &str) -> Result<&'d str, ConfigError> {
        let text = self.text(key)?.ok_or_else(|| self.error(key, "missing"))?;
        if text.is_empty() { Err(self.error(key, "must not be empty")) } else { Ok(text) }
    }

    /// Returns a list of texts, empty where there is none.
    ///
    /// # Errors
    /// Where it is something else.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let array =
            value.as_array().ok_or_else(|| self.wrong_type(key, value, "a list of texts"))?;
        let text = |item: &Spanned<DeValue<'_>>| {
            let item = item.get_ref();
            item.as_str()
                .map(str::to_owned)
                .ok_or_else(|| self.wrong_type(key, item, "a list of texts"))
        };
        array.iter().map(text).collect()
    }

    /// Returns a whole number that is not negative.
    ///
    /// # Errors
    /// Where it is something else.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number =
            value.as_integer().and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok());
        number.map(Some).ok_or_else(|| self.wrong_type(key, value, "a whole number from 0 on"))
    }

    /// Returns a size that is a whole number of pages, above zero.
    ///
    /// # Errors
    /// Where it is something else.
    pub(super) fn pages(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text =
            value.as_str().ok_or_else(|| self.wrong_type(key, value, "a size like \"256 MiB\""))?;
        let bytes = size::parse(text).map_err(|message| self.error(key, &message))?;
        if bytes == 0 {
            return Err(self.error(
                key,
                &format!("{text} is too small: the least is {}", size::format(PAGE_SIZE)),
            ));
        }
        if !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(
                self.error(key, &format!("{text} is no multiple of {}", size::format(PAGE_SIZE)))
            );
        }
        Ok(Some(bytes))
    }

    /// Returns a time within `bounds`, in nanoseconds.
    ///
    /// # Errors
    /// Where it is something else.
    pub(super) fn duration(
        &self,
        key: &str,
        bounds: RangeInclusive<Duration>,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text =
            value.as_str().ok_or_else(|| self.wrong_type(key, value, "a time like \"2 s\""))?;
        let time = duration::parse(text).map_err(|message| self.error(key, &message))?;
        if !bounds.contains(&time) {
            let (least, most) =
                (duration::format(*bounds.start()), duration::format(*bounds.end()));
            return Err(self.error(key, &format!("“{text}” is not within {least} and {most}")));
        }
        // The longest time allowed, a day, is below 2^64 ns.
        Ok(u64::try_from(time.as_nanos()).ok())
    }

    /// As [`Section::pages`], for a required key.
    ///
    /// # Errors
    /// Where it is missing or something else.
    pub(super) fn required_pages(&self, key: &str) -> Result<u64, ConfigError> {
        self.pages(key)?.ok_or_else(|| self.error(key, "missing"))
    }

    /// Returns the value of one of the given words.
    ///
    /// # Errors
    /// Names the allowed words where the value is none of them.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let known =
            || words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let found = words.iter().find(|(word, _)| *word == text);
        found
            .map(|(_, value)| Some(*value))
            .ok_or_else(|| self.error(key, &format!("\"{text}\" is none of {}", known())))
    }

    /// Returns the table `[key]`.
    ///
    /// # Errors
    /// Where it is something else.
    pub(super) fn section(&self, key: &str) -> Result<Option<Section<'d>>, ConfigError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        self.below(key, value).map(Some)
    }

    /// Returns the tables `[[key]]`.
    ///
    /// # Errors
    /// Where it is something else.
    pub(super) fn sections(&self, key: &str) -> Result<Vec<Section<'d>>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let array = value
            .as_array()
            .ok_or_else(|| self.wrong_type(key, value, &format!("a list of tables: [[{key}]]")))?;
        array.iter().map(|item| self.below(key, item)).collect()
    }

    fn below(
        &self,
        key: &str,
        value: &'d Spanned<DeValue<'d>>,
    ) -> Result<Section<'d>, ConfigError> {
        let wrong = || self.wrong_type(key, value.get_ref(), &format!("a table: [{key}]"));
        let table = value.get_ref().as_table().ok_or_else(wrong)?;
        Ok(Section { text: self.text, path: self.name(key), table, at: value.span() })
    }
}
