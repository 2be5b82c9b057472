//! Reads types from JSON, and knows the place of what is wrong: `linux.resources.pids.limit`.
//!
//! serde asks for a value when it knows the property's name, and passes over a property that no type has by asking for a
//! value that it ignores. So a deserializer that carries its place along can name both.

use anyhow::{Error, anyhow};
use serde::de::value::StrDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value, map};
use std::cell::RefCell;
use std::fmt::{self, Display, Formatter};
use std::vec;

/// Reads a `T` from `value`. `unknown` gets the place of each property that no type has.
///
/// # Errors
/// A property is missing or of another kind: the text begins with its place.
pub fn read<'de, T: Deserialize<'de>>(
    value: Value,
    unknown: &mut dyn FnMut(String),
) -> Result<T, Error> {
    let top = At {
        value,
        place: &Place::Top,
        unknown: &RefCell::new(unknown),
    };
    T::deserialize(top).map_err(|wrong| anyhow!("{wrong}"))
}

/// Where a value is.
enum Place<'a> {
    Top,
    Property(&'a Place<'a>, String),
    Element(&'a Place<'a>, usize),
}

impl Display for Place<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Place::Top => Ok(()),
            Place::Property(Place::Top, name) => f.write_str(name),
            Place::Property(above, name) => write!(f, "{above}.{name}"),
            Place::Element(above, number) => write!(f, "{above}[{number}]"),
        }
    }
}

/// What is wrong, and from the innermost value that is concerned on, where. Each value that is read is returned in the
/// place of one of these, so they are small.
#[derive(Debug)]
struct Wrong(Box<Words>);

#[derive(Debug)]
struct Words {
    place: Option<String>,
    text: String,
}

impl Wrong {
    fn at(mut self, place: &Place) -> Wrong {
        self.0.place.get_or_insert_with(|| place.to_string());
        self
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Words { place, text } = &*self.0;
        match place.as_deref() {
            None | Some("") => f.write_str(text),
            Some(place) => write!(f, "{place}: {text}"),
        }
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: Display>(text: T) -> Wrong {
        Wrong(Box::new(Words {
            place: None,
            text: text.to_string(),
        }))
    }
}

/// Who is told of properties that no type has.
type Unknown<'a> = RefCell<&'a mut dyn FnMut(String)>;

/// A value at its place.
struct At<'a, 'u> {
    value: Value,
    place: &'a Place<'a>,
    unknown: &'a Unknown<'u>,
}

impl<'de> Deserializer<'de> for At<'_, '_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let At {
            value,
            place,
            unknown,
        } = self;
        let read = match value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(is) => visitor.visit_bool(is),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(elements) => visitor.visit_seq(Elements::of(elements, place, unknown)),
            Value::Object(members) => visitor.visit_map(Members::of(members, place, unknown)),
        };
        read.map_err(|wrong| wrong.at(place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        (self.unknown.borrow_mut())(self.place.to_string());
        visitor.visit_unit()
    }

    /// An object alone. serde would take an array for a struct, too: the values of all properties in their order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let read = match self.value {
            Value::Object(members) => {
                visitor.visit_map(Members::of(members, self.place, self.unknown))
            }
            other => Err(Wrong::invalid_type(kind_of(&other), &visitor)),
        };
        read.map_err(|wrong| wrong.at(self.place))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let read = match self.value {
            Value::Array(elements) => {
                visitor.visit_seq(Elements::of(elements, self.place, self.unknown))
            }
            other => Err(Wrong::invalid_type(kind_of(&other), &visitor)),
        };
        read.map_err(|wrong| wrong.at(self.place))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier
    }
}

/// What a value is, for a reader who expects something else.
fn kind_of(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(is) => Unexpected::Bool(*is),
        Value::Number(_) => Unexpected::Other("number"),
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

/// The members of an object.
struct Members<'a, 'u> {
    members: map::IntoIter,
    next: Option<(String, Value)>,
    place: &'a Place<'a>,
    unknown: &'a Unknown<'u>,
}

impl<'a, 'u> Members<'a, 'u> {
    fn of(
        members: Map<String, Value>,
        place: &'a Place<'a>,
        unknown: &'a Unknown<'u>,
    ) -> Members<'a, 'u> {
        Members {
            members: members.into_iter(),
            next: None,
            place,
            unknown,
        }
    }
}

impl<'de> MapAccess<'de> for Members<'_, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        self.next = self.members.next();
        let Some((name, _)) = &self.next else {
            return Ok(None);
        };
        let name: StrDeserializer<Wrong> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        let (name, value) = self.next.take().unwrap_or_default();
        seed.deserialize(At {
            value,
            place: &Place::Property(self.place, name),
            unknown: self.unknown,
        })
    }
}

/// The elements of an array.
struct Elements<'a, 'u> {
    elements: vec::IntoIter<Value>,
    next: usize,
    place: &'a Place<'a>,
    unknown: &'a Unknown<'u>,
}

impl<'a, 'u> Elements<'a, 'u> {
    fn of(elements: Vec<Value>, place: &'a Place<'a>, unknown: &'a Unknown<'u>) -> Self {
        Elements {
            elements: elements.into_iter(),
            next: 0,
            place,
            unknown,
        }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = Wrong;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Wrong> {
        let Some(value) = self.elements.next() else {
            return Ok(None);
        };
        let place = &Place::Element(self.place, self.next);
        self.next += 1;
        let unknown = self.unknown;
        seed.deserialize(At {
            value,
            place,
            unknown,
        })
        .map(Some)
    }
}
