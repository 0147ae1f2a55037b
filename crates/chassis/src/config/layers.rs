//! Lays file, environment and flags over the defaults.

use std::{fs::File, io::Read as _, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use super::{
    Common, ConfigError,
    schema::{HOISTED, Kind, Schema},
};

/// A settings file above this size is a mistake.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads the settings of `service`: the defaults of `T`, then `file`, then the variables `ASTERISM_<SERVICE>_…` of
/// `env`, then `flags` (dotted name and text), each over the one before.
///
/// # Errors
/// [`ConfigError`] for a file that cannot be read or parsed, for unknown names, for wrong values, and for a
/// listener or a peer on another machine without `allow_remote_plaintext`.
pub fn load<T: DeserializeOwned + Serialize + Default>(
    service: &str,
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<T, ConfigError> {
    let Some(path) = file else {
        return load_text(service, None, env, flags);
    };
    let name = path.display().to_string();
    let text = read_capped(path).map_err(|source| ConfigError::File {
        path: name.clone(),
        source,
    })?;
    load_text(service, Some((&name, &text)), env, flags)
}

/// As [`load`], with the file's name and text already at hand.
///
/// # Errors
/// As [`load`].
pub fn load_text<T: DeserializeOwned + Serialize + Default>(
    service: &str,
    file: Option<(&str, &str)>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<T, ConfigError> {
    let default = T::default();
    let as_json = serde_json::to_value(&default).map_err(|error| ConfigError::Type(error.to_string()))?;
    let base = Table::try_from(&default).map_err(|error| ConfigError::Type(error.to_string()))?;
    let layers = Layers::<T> {
        schema: Schema::of(&as_json)?,
        base,
        marker: std::marker::PhantomData,
    };

    let mut settings = Vec::new();
    if let Some((name, text)) = file {
        settings.extend(layers.read_file(name, text)?);
    }
    settings.extend(layers.read_env(service, env)?);
    for (key, text) in flags {
        settings.push(layers.read_text(key, text, "among the flags".to_owned())?);
    }
    layers.resolve(&settings)
}

fn read_capped(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            "larger than 1 MiB",
        ));
    }
    Ok(text)
}

/// One value for one setting from one place; `None` unsets an option.
struct Setting {
    key: String,
    path: Vec<String>,
    value: Option<Value>,
    origin: String,
}

struct Layers<T> {
    schema: Schema,
    base: Table,
    marker: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Layers<T> {
    fn read_file(&self, name: &str, text: &str) -> Result<Vec<Setting>, ConfigError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| {
                text.as_bytes()
                    .iter()
                    .take(span.start)
                    .filter(|byte| **byte == b'\n')
                    .count()
                    + 1
            });
            ConfigError::Syntax {
                place: format!("{name} line {line}"),
                message: error.message().to_owned(),
            }
        })?;
        let mut settings = Vec::new();
        self.walk(&format!("in {name}"), "", table, &mut settings)?;
        Ok(settings)
    }

    /// Collects the settings under `section` of a file.
    fn walk(
        &self,
        origin: &str,
        section: &str,
        table: Table,
        out: &mut Vec<Setting>,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = if section.is_empty() {
                name
            } else {
                format!("{section}.{name}")
            };
            if let Some(entry) = self.schema.get(&key) {
                let value = typed(entry.kind, value).map_err(|expected| invalid(&key, origin, expected))?;
                out.push(Setting {
                    key,
                    path: entry.path.clone(),
                    value,
                    origin: origin.to_owned(),
                });
            } else if !self.schema.is_section(&key) {
                return Err(self.unknown(key, origin));
            } else if let Value::Table(table) = value {
                self.walk(origin, &key, table, out)?;
            } else {
                return Err(invalid(&key, origin, "must be a section"));
            }
        }
        Ok(())
    }

    fn read_env(
        &self,
        service: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Vec<Setting>, ConfigError> {
        let prefix = format!("ASTERISM_{}_", service.to_uppercase());
        let mut given: Vec<_> = env
            .filter_map(|(name, text)| name.strip_prefix(&prefix).map(|rest| (rest.to_owned(), text)))
            .filter(|(rest, _)| rest != "CONFIG" && !is_service_link(rest))
            .collect();
        // The order of the environment means nothing; errors should not depend on it.
        given.sort();
        given
            .into_iter()
            .map(|(rest, text)| {
                let key = rest.replace("__", ".").to_lowercase();
                self.read_text(
                    &key,
                    &text,
                    format!("from the environment variable {prefix}{rest}"),
                )
            })
            .collect()
    }

    fn read_text(&self, key: &str, text: &str, origin: String) -> Result<Setting, ConfigError> {
        let Some(entry) = self.schema.get(key) else {
            if self.schema.is_section(key) {
                return Err(invalid(key, &origin, "is a section: name one of its settings"));
            }
            return Err(self.unknown(key.to_owned(), &origin));
        };
        let value = match entry.kind {
            Kind::Optional => self.option(&entry.path, text),
            kind => parsed(kind, text).and_then(|value| typed(kind, value)),
        };
        let value = value.map_err(|expected| invalid(key, &origin, expected))?;
        Ok(Setting {
            key: key.to_owned(),
            path: entry.path.clone(),
            value,
            origin,
        })
    }

    /// An option's type is known to serde alone: text is tried first, then a TOML value.
    fn option(&self, path: &[String], text: &str) -> Result<Option<Value>, &'static str> {
        if text.is_empty() {
            return Ok(None);
        }
        let fits = |value: &Value| {
            let mut table = self.base.clone();
            put(&mut table, path, Some(value.clone()));
            table.try_into::<T>().is_ok()
        };
        [Some(Value::String(text.to_owned())), literal(text)]
            .into_iter()
            .flatten()
            .find(fits)
            .map(Some)
            .ok_or("has a value of the wrong kind")
    }

    fn resolve(&self, settings: &[Setting]) -> Result<T, ConfigError> {
        let mut merged = self.base.clone();
        for setting in settings {
            put(&mut merged, &setting.path, setting.value.clone());
        }
        let common = merged.get(HOISTED).cloned();
        let config: T = merged.try_into().map_err(|error| self.blame(settings, &error))?;
        if let Some(common) = common.and_then(|value| value.try_into::<Common>().ok()) {
            common.check()?;
        }
        Ok(config)
    }

    /// Finds the setting that serde refused: serde's own error names no layer.
    fn blame(&self, settings: &[Setting], error: &toml::de::Error) -> ConfigError {
        for setting in settings {
            let mut alone = self.base.clone();
            put(&mut alone, &setting.path, setting.value.clone());
            if let Err(error) = alone.try_into::<T>() {
                let message = format!("is refused: {}", error.message());
                return invalid(&setting.key, &setting.origin, &message);
            }
        }
        ConfigError::Type(error.message().to_owned())
    }

    fn unknown(&self, key: String, origin: &str) -> ConfigError {
        let nearest = self.schema.nearest(&key);
        ConfigError::Unknown {
            key,
            origin: origin.to_owned(),
            nearest,
        }
    }
}

fn invalid(key: &str, origin: &str, message: &str) -> ConfigError {
    ConfigError::Invalid {
        key: key.to_owned(),
        origin: origin.to_owned(),
        message: message.to_owned(),
    }
}

/// Kubernetes puts the address of a Service called `asterism-kms` into every pod's environment as
/// `ASTERISM_KMS_SERVICE_HOST`, `ASTERISM_KMS_PORT_7001_TCP` and so on: not settings of ours.
fn is_service_link(rest: &str) -> bool {
    rest == "PORT"
        || rest.starts_with("SERVICE_HOST")
        || rest.starts_with("SERVICE_PORT")
        || rest
            .strip_prefix("PORT_")
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// Sets the value at `path`, or removes it.
fn put(table: &mut Table, path: &[String], value: Option<Value>) {
    let Some((last, sections)) = path.split_last() else {
        return;
    };
    let mut table = table;
    for section in sections {
        let entry = table
            .entry(section.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = entry else {
            return;
        };
        table = inner;
    }
    match value {
        Some(value) => {
            table.insert(last.clone(), value);
        }
        None => {
            table.remove(last);
        }
    }
}

/// Checks a TOML value against the kind of its setting. `Err` says what it must be.
fn typed(kind: Kind, value: Value) -> Result<Option<Value>, &'static str> {
    match (kind, value) {
        (Kind::Optional, Value::String(text)) if text.is_empty() => Ok(None),
        (Kind::Float, Value::Integer(number)) => Ok(Some(Value::Float(number as f64))),
        (Kind::Bool, value @ Value::Boolean(_))
        | (Kind::Integer, value @ Value::Integer(_))
        | (Kind::Float, value @ Value::Float(_))
        | (Kind::Text, value @ Value::String(_))
        | (Kind::List, value @ Value::Array(_))
        | (Kind::Map, value @ Value::Table(_))
        | (Kind::Optional, value) => Ok(Some(value)),
        (kind, _) => Err(expectation(kind)),
    }
}

/// Reads the text of a variable or a flag as the kind of its setting.
fn parsed(kind: Kind, text: &str) -> Result<Value, &'static str> {
    let value = match kind {
        Kind::Text | Kind::Optional => Some(Value::String(text.to_owned())),
        Kind::Bool => text.parse().ok().map(Value::Boolean),
        Kind::Integer => text.parse().ok().map(Value::Integer),
        Kind::Float => text.parse().ok().map(Value::Float),
        Kind::List if text.trim_start().starts_with('[') => literal(text),
        Kind::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(
                items.map(|item| Value::String(item.to_owned())).collect(),
            ))
        }
        Kind::Map => literal(text),
    };
    value.ok_or(expectation(kind))
}

fn literal(text: &str) -> Option<Value> {
    if text.contains('\n') {
        return None; // would start another key
    }
    format!("v = {text}").parse::<Table>().ok()?.remove("v")
}

fn expectation(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "must be true or false",
        Kind::Integer => "must be a whole number",
        Kind::Float => "must be a number",
        Kind::Text => "must be text",
        Kind::List => "must be a list",
        Kind::Map => "must be a table",
        Kind::Optional => "has a value of the wrong kind",
    }
}
