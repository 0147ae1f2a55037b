//! The names and kinds of the settings, read off the serialised default.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::ConfigError;

/// The section whose keys users see at the top level.
pub(super) const HOISTED: &str = "common";

/// Every known setting by its dotted name.
pub(super) struct Schema {
    entries: BTreeMap<String, Entry>,
}

/// One known setting.
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// Where the value lies in the serialised type.
    pub(super) path: Vec<String>,
}

/// What a setting may hold, as far as its default tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Integer,
    Float,
    Text,
    List,
    /// An option that is unset by default: its type shows only when it is deserialised.
    Optional,
    /// A map that is empty by default: any keys.
    Map,
}

impl Schema {
    /// The settings of a type whose default serialises to `default`. JSON, because TOML leaves unset options out.
    pub(super) fn of(default: &Json) -> Result<Self, ConfigError> {
        let Json::Object(fields) = default else {
            return Err(ConfigError::Type("it must be a struct".to_owned()));
        };
        let mut schema = Self {
            entries: BTreeMap::new(),
        };
        for (name, value) in fields {
            match value {
                Json::Object(common) if name == HOISTED => {
                    for (name, value) in common {
                        schema.add(name.clone(), vec![HOISTED.to_owned(), name.clone()], value)?;
                    }
                }
                _ => schema.add(name.clone(), vec![name.clone()], value)?,
            }
        }
        Ok(schema)
    }

    fn add(&mut self, name: String, path: Vec<String>, value: &Json) -> Result<(), ConfigError> {
        let kind = match value {
            Json::Null => Kind::Optional,
            Json::Bool(_) => Kind::Bool,
            Json::Number(number) if number.is_f64() => Kind::Float,
            Json::Number(_) => Kind::Integer,
            Json::String(_) => Kind::Text,
            Json::Array(_) => Kind::List,
            Json::Object(fields) if fields.is_empty() => Kind::Map,
            Json::Object(fields) => {
                for (field, value) in fields {
                    let mut path = path.clone();
                    path.push(field.clone());
                    self.add(format!("{name}.{field}"), path, value)?;
                }
                return Ok(());
            }
        };
        match self.entries.insert(name.clone(), Entry { kind, path }) {
            None => Ok(()),
            Some(_) => Err(ConfigError::Type(format!(
                "`{name}` is a setting of every service already"
            ))),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Whether `name` is a section, that is: some setting lies below it.
    pub(super) fn is_section(&self, name: &str) -> bool {
        self.entries
            .keys()
            .any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The known name that looks most like `name`, if one is near enough to be meant.
    pub(super) fn nearest(&self, name: &str) -> Option<String> {
        // Distances cost the product of the lengths, and no setting's name is this long.
        if name.len() > 200 {
            return None;
        }
        let sections = self
            .entries
            .keys()
            .filter_map(|key| key.rsplit_once('.'))
            .map(|(section, _)| section);
        self.entries
            .keys()
            .map(String::as_str)
            .chain(sections)
            .map(|known| {
                // Someone who writes `queue` at the top level means `limits.queue`.
                let last = known.rsplit('.').next().unwrap_or(known);
                let distance = strsim::osa_distance(name, known).min(strsim::osa_distance(name, last));
                // Of names as near, the shorter: `listen` rather than `channel.listen`.
                (distance, known.len(), known)
            })
            .filter(|(distance, length, _)| *distance <= (length / 3).clamp(1, 4))
            .min()
            .map(|(_, _, known)| known.to_owned())
    }
}
