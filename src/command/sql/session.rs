//! What one user has set: properties, variables, the form of the output.
//!
//! It lives here and not with the server: every request carries it. Property names are kept in lower case, without the
//! prefix `ksql.streams.`; variable names in upper case.

use std::collections::BTreeMap;

use millpond_sql::substitute::Variables;
use serde_json::{Map, Value as Json};

use super::args::OutputForm;

pub struct Session {
    properties: BTreeMap<String, String>,
    pub variables: Variables,
    pub form: OutputForm,
}

impl Session {
    pub fn new(form: OutputForm) -> Self {
        Self { properties: BTreeMap::new(), variables: Variables::new(), form }
    }

    /// Returns the value that the property had in this session.
    pub fn set(&mut self, name: &str, value: &str) -> Option<String> {
        self.properties.insert(normal(name), value.to_string())
    }

    pub fn unset(&mut self, name: &str) -> Option<String> {
        self.properties.remove(&normal(name))
    }

    /// `streamsProperties` of a request.
    pub fn properties_json(&self) -> Map<String, Json> {
        self.properties.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect()
    }

    /// `sessionVariables` of a request.
    pub fn variables_json(&self) -> Map<String, Json> {
        self.variables.iter().map(|(name, value)| (name.to_string(), value.into())).collect()
    }
}

fn normal(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    name.strip_prefix("ksql.streams.").map(str::to_string).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_has_one_name() {
        let mut session = Session::new(OutputForm::Json);
        assert_eq!(session.set("ksql.streams.auto.offset.reset", "earliest"), None);
        assert_eq!(session.set("AUTO.OFFSET.RESET", "latest"), Some("earliest".into()));
        assert_eq!(Json::from(session.properties_json()).to_string(), r#"{"auto.offset.reset":"latest"}"#);
        assert_eq!(session.unset("auto.offset.reset"), Some("latest".into()));
        session.variables.define("topic", "t");
        assert_eq!(Json::from(session.variables_json()).to_string(), r#"{"TOPIC":"t"}"#);
    }
}
