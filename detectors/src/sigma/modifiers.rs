//! Modifiers: which make sense together, and what they ask for.

use rsigma_parser::Modifier;

use crate::program::{Compare, Flags, Relation, TimePart};

/// How the field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equals,
    Contains,
    StartsWith,
    EndsWith,
    Regex,
    Cidr,
    Exists,
    Number(Compare),
    /// With another field.
    Field(Relation),
}

/// How a value is encoded before it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf16Le,
    Utf16Be,
    /// Little endian, with a byte order mark.
    Utf16,
    Base64,
    /// At each of the three offsets that it may have in a longer text.
    Base64Offset,
}

/// What the modifiers of one item ask for.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a modifier that is there or not
pub(super) struct Plan {
    pub(super) operator: Operator,
    pub(super) all: bool,
    pub(super) cased: bool,
    pub(super) negate: bool,
    pub(super) expand: bool,
    pub(super) windash: bool,
    pub(super) encodings: Vec<Encoding>,
    pub(super) time: Option<TimePart>,
    pub(super) flags: Flags,
}

impl Plan {
    /// Reads the modifiers of a field, or of keywords.
    pub(super) fn new(modifiers: &[Modifier], keywords: bool) -> Result<Plan, String> {
        let mut plan = Plan {
            operator: Operator::Equals,
            all: false,
            cased: false,
            negate: false,
            expand: false,
            windash: false,
            encodings: Vec::new(),
            time: None,
            flags: Flags::default(),
        };
        let mut fieldref = false;
        for modifier in modifiers {
            plan.apply(*modifier, &mut fieldref)?;
        }
        if fieldref {
            plan.operator = Operator::Field(plan.relation()?);
        }
        if keywords {
            plan.as_keywords()?;
        }
        plan.check()?;
        Ok(plan)
    }

    fn apply(&mut self, modifier: Modifier, fieldref: &mut bool) -> Result<(), String> {
        match modifier {
            Modifier::Contains => self.operate(Operator::Contains)?,
            Modifier::StartsWith => self.operate(Operator::StartsWith)?,
            Modifier::EndsWith => self.operate(Operator::EndsWith)?,
            Modifier::Re => self.operate(Operator::Regex)?,
            Modifier::Cidr => self.operate(Operator::Cidr)?,
            Modifier::Exists => self.operate(Operator::Exists)?,
            Modifier::Gt => self.operate(Operator::Number(Compare::Gt))?,
            Modifier::Gte => self.operate(Operator::Number(Compare::Gte))?,
            Modifier::Lt => self.operate(Operator::Number(Compare::Lt))?,
            Modifier::Lte => self.operate(Operator::Number(Compare::Lte))?,
            Modifier::FieldRef => *fieldref = true,
            Modifier::Neq => self.negate = true,
            Modifier::All => self.all = true,
            Modifier::Cased => self.cased = true,
            Modifier::Expand => self.expand = true,
            Modifier::WindAsh => self.windash = true,
            Modifier::Base64 => self.encode(Encoding::Base64)?,
            Modifier::Base64Offset => self.encode(Encoding::Base64Offset)?,
            Modifier::Wide => self.encode(Encoding::Utf16Le)?,
            Modifier::Utf16be => self.encode(Encoding::Utf16Be)?,
            Modifier::Utf16 => self.encode(Encoding::Utf16)?,
            Modifier::IgnoreCase => self.flags.case_insensitive = self.flag("i")?,
            Modifier::Multiline => self.flags.multi_line = self.flag("m")?,
            Modifier::DotAll => self.flags.dot_matches_new_line = self.flag("s")?,
            Modifier::Minute => self.part(TimePart::Minute)?,
            Modifier::Hour => self.part(TimePart::Hour)?,
            Modifier::Day => self.part(TimePart::Day)?,
            Modifier::Week => self.part(TimePart::Week)?,
            Modifier::Month => self.part(TimePart::Month)?,
            Modifier::Year => self.part(TimePart::Year)?,
        }
        Ok(())
    }

    fn operate(&mut self, operator: Operator) -> Result<(), String> {
        if self.operator != Operator::Equals {
            return Err(format!("`{}` and `{}` exclude each other", self.operator.name(), operator.name()));
        }
        self.operator = operator;
        Ok(())
    }

    fn encode(&mut self, encoding: Encoding) -> Result<(), String> {
        if self.is_base64() {
            return Err("nothing can be encoded after `base64` or `base64offset`".into());
        }
        if !self.encodings.is_empty() && !matches!(encoding, Encoding::Base64 | Encoding::Base64Offset) {
            return Err("text can be made UTF-16 only once".into());
        }
        self.encodings.push(encoding);
        Ok(())
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        match self.operator {
            Operator::Regex => Ok(true),
            _ => Err(format!("`{name}` belongs after `re`")),
        }
    }

    fn part(&mut self, part: TimePart) -> Result<(), String> {
        match self.time.replace(part) {
            None => Ok(()),
            Some(_) => Err("a time has only one part at a time".into()),
        }
    }

    fn relation(&self) -> Result<Relation, String> {
        match self.operator {
            Operator::Equals => Ok(Relation::Equals),
            Operator::Contains => Ok(Relation::Contains),
            Operator::StartsWith => Ok(Relation::StartsWith),
            Operator::EndsWith => Ok(Relation::EndsWith),
            other => Err(format!("`fieldref` and `{}` exclude each other", other.name())),
        }
    }

    /// Keywords are looked for anywhere in a text.
    fn as_keywords(&mut self) -> Result<(), String> {
        match self.operator {
            Operator::Equals if self.time.is_none() => self.operator = Operator::Contains,
            Operator::Contains
            | Operator::StartsWith
            | Operator::EndsWith
            | Operator::Regex
            | Operator::Cidr => {}
            _ => return Err("this modifier needs a field".into()),
        }
        Ok(())
    }

    pub(super) fn is_base64(&self) -> bool {
        self.encodings.iter().any(|e| matches!(e, Encoding::Base64 | Encoding::Base64Offset))
    }

    fn check(&self) -> Result<(), String> {
        let name = self.operator.name();
        let textual = matches!(
            self.operator,
            Operator::Equals | Operator::Contains | Operator::StartsWith | Operator::EndsWith
        );
        let refuse = |what: &str| Err(format!("`{what}` and `{name}` exclude each other"));
        if !textual && !self.encodings.is_empty() {
            return Err(format!("an encoded text cannot be compared with `{name}`"));
        }
        if !textual && self.windash {
            return refuse("windash");
        }
        if self.cased && !textual && !matches!(self.operator, Operator::Field(_)) {
            return refuse("cased");
        }
        if self.time.is_some() && !matches!(self.operator, Operator::Equals | Operator::Number(_)) {
            return Err(format!("a part of a time cannot be compared with `{name}`"));
        }
        if self.time.is_some() && (self.cased || self.windash || !self.encodings.is_empty()) {
            return Err("a part of a time is a number".into());
        }
        if matches!(self.operator, Operator::Exists | Operator::Field(_)) && (self.all || self.expand) {
            return refuse(if self.all { "all" } else { "expand" });
        }
        if self.negate && matches!(self.operator, Operator::Exists | Operator::Number(_)) {
            return refuse("neq");
        }
        Ok(())
    }
}

impl Operator {
    fn name(self) -> &'static str {
        match self {
            Operator::Equals => "equality",
            Operator::Contains => "contains",
            Operator::StartsWith => "startswith",
            Operator::EndsWith => "endswith",
            Operator::Regex => "re",
            Operator::Cidr => "cidr",
            Operator::Exists => "exists",
            Operator::Number(Compare::Gt) => "gt",
            Operator::Number(Compare::Gte) => "gte",
            Operator::Number(Compare::Lt) => "lt",
            Operator::Number(_) => "lte",
            Operator::Field(_) => "fieldref",
        }
    }
}
