//! Values: the subset of MessagePack that the wire knows (PROTOCOL.md section 1).
//!
//! The decoder allocates as bytes arrive: an announced length only ever reserves what the bytes at hand could fill.

use std::collections::HashSet;

use crate::error::{ProtocolError, UsageError};
use crate::limits::{VALUE_DEPTH_MAX, VALUE_ITEMS_MAX};

/// A value. Maps keep the order of their entries.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// nil
    Nil,
    /// true and false
    Bool(bool),
    /// an integer
    Int(i64),
    /// a 64-bit float
    Float(f64),
    /// text
    Str(String),
    /// bytes
    Bin(Vec<u8>),
    /// an array
    Array(Vec<Self>),
    /// a map; no key occurs twice
    Map(Vec<(String, Self)>),
}

impl Value {
    /// The entry `key` of a map.
    pub fn entry(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a str.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The number of an integer.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The bytes of a bin.
    pub fn as_bin(&self) -> Option<&[u8]> {
        if let Self::Bin(bytes) = self { Some(bytes) } else { None }
    }

    /// The items of an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// A map of these entries.
pub fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Appends `value`. On an error `out` holds a part of it.
pub fn encode(value: &Value, out: &mut Vec<u8>) -> Result<(), UsageError> {
    Encoder { items: 0, out }.value(value, 0)
}

/// Takes one value from the front of `input`.
pub fn decode(input: &mut &[u8]) -> Result<Value, ProtocolError> {
    Decoder { items: 0, input }.value(0)
}

/// The one value that `input` is.
pub fn decode_all(mut input: &[u8]) -> Result<Value, ProtocolError> {
    let value = decode(&mut input)?;
    crate::varint::decode_end(input)?;
    Ok(value)
}

struct Encoder<'a> {
    items: usize,
    out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), UsageError> {
        self.items += 1;
        if self.items > VALUE_ITEMS_MAX {
            return Err(UsageError(format!("more than {VALUE_ITEMS_MAX} values in one")));
        }
        match value {
            Value::Nil => self.out.push(0xc0),
            Value::Bool(flag) => self.out.push(0xc2 + u8::from(*flag)),
            Value::Int(number) => self.int(*number),
            Value::Float(number) => {
                self.out.push(0xcb);
                self.out.extend_from_slice(&number.to_be_bytes());
            }
            Value::Str(text) => self.str(text)?,
            Value::Bin(bytes) => {
                self.head(bytes.len(), None, [Some(0xc4), Some(0xc5), Some(0xc6)])?;
                self.out.extend_from_slice(bytes);
            }
            Value::Array(items) => {
                self.deeper(depth)?;
                self.head(items.len(), Some((0x90, 16)), [None, Some(0xdc), Some(0xdd)])?;
                for item in items {
                    self.value(item, depth + 1)?;
                }
            }
            Value::Map(entries) => {
                self.deeper(depth)?;
                self.head(entries.len(), Some((0x80, 16)), [None, Some(0xde), Some(0xdf)])?;
                for (key, item) in entries {
                    self.str(key)?;
                    self.value(item, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn deeper(&self, depth: usize) -> Result<(), UsageError> {
        if depth < VALUE_DEPTH_MAX {
            Ok(())
        } else {
            Err(UsageError(format!("a value nested deeper than {VALUE_DEPTH_MAX}")))
        }
    }

    fn int(&mut self, number: i64) {
        let bytes = number.to_be_bytes();
        let (kind, width) = match number {
            -32..=0x7f => (None, 1),
            0x80..=0xff => (Some(0xcc), 1),
            0x100..=0xffff => (Some(0xcd), 2),
            0x1_0000..=0xffff_ffff => (Some(0xce), 4),
            0x1_0000_0000..=i64::MAX => (Some(0xcf), 8),
            -0x80..=-33 => (Some(0xd0), 1),
            -0x8000..=-0x81 => (Some(0xd1), 2),
            -0x8000_0000..=-0x8001 => (Some(0xd2), 4),
            i64::MIN..=-0x8000_0001 => (Some(0xd3), 8),
        };
        self.out.extend(kind);
        self.out.extend(bytes.iter().skip(bytes.len() - width));
    }

    fn str(&mut self, text: &str) -> Result<(), UsageError> {
        self.head(text.len(), Some((0xa0, 32)), [Some(0xd9), Some(0xda), Some(0xdb)])?;
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// The shortest of: a length inside the type byte (base, bound), or behind one of the types for 1, 2 and 4 bytes.
    fn head(&mut self, length: usize, short: Option<(u8, usize)>, wide: [Option<u8>; 3]) -> Result<(), UsageError> {
        let length32 =
            u32::try_from(length).map_err(|_| UsageError(format!("{length} bytes or items in one value")))?;
        if let Some((base, bound)) = short
            && length < bound
        {
            self.out.push(base | length as u8);
            return Ok(());
        }
        let bytes = length32.to_be_bytes();
        for (kind, width) in wide.into_iter().zip([1, 2, 4]) {
            if let Some(kind) = kind
                && (width == 4 || length >> (8 * width) == 0)
            {
                self.out.push(kind);
                self.out.extend(bytes.iter().skip(bytes.len() - width));
                break;
            }
        }
        Ok(())
    }
}

struct Decoder<'a, 'b> {
    items: usize,
    input: &'a mut &'b [u8],
}

impl Decoder<'_, '_> {
    fn value(&mut self, depth: usize) -> Result<Value, ProtocolError> {
        self.items += 1;
        if self.items > VALUE_ITEMS_MAX {
            return Err(malformed(format!("more than {VALUE_ITEMS_MAX} values in one")));
        }
        let kind = self.uint(1)? as u8;
        Ok(match kind {
            0x00..=0x7f => Value::Int(i64::from(kind)),
            0xe0..=0xff => Value::Int(i64::from(kind as i8)),
            0x80..=0x8f => self.map(usize::from(kind & 0x0f), depth)?,
            0x90..=0x9f => self.array(usize::from(kind & 0x0f), depth)?,
            0xa0..=0xbf | 0xd9..=0xdb => Value::Str(self.text(kind)?),
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Bool(kind == 0xc3),
            0xc4..=0xc6 => {
                let length = self.uint(1 << (kind - 0xc4))?;
                Value::Bin(self.bytes(length)?.to_vec())
            }
            0xcb => Value::Float(f64::from_bits(self.uint(8)?)),
            0xcc..=0xcf => {
                let number = self.uint(1 << (kind - 0xcc))?;
                Value::Int(
                    i64::try_from(number)
                        .map_err(|_| malformed(format!("the integer {number} does not fit 64 bits")))?,
                )
            }
            0xd0..=0xd3 => {
                let width = 1 << (kind - 0xd0);
                let shift = 64 - 8 * width as u32;
                Value::Int(((self.uint(width)? << shift) as i64) >> shift)
            }
            0xdc | 0xdd => {
                let length = self.uint(2 << (kind - 0xdc))?;
                self.array(length as usize, depth)?
            }
            0xde | 0xdf => {
                let length = self.uint(2 << (kind - 0xde))?;
                self.map(length as usize, depth)?
            }
            0xc1 | 0xc7..=0xca | 0xd4..=0xd8 => {
                return Err(malformed(format!("0x{kind:02x} begins no value of this wire")));
            }
        })
    }

    fn array(&mut self, length: usize, depth: usize) -> Result<Value, ProtocolError> {
        self.deeper(depth)?;
        let mut items = Vec::with_capacity(length.min(self.input.len()).min(1024));
        for _ in 0..length {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, length: usize, depth: usize) -> Result<Value, ProtocolError> {
        self.deeper(depth)?;
        let mut entries: Vec<(String, Value)> = Vec::with_capacity(length.min(self.input.len()).min(1024));
        for _ in 0..length {
            let kind = self.uint(1)? as u8;
            let key = self.text(kind)?;
            entries.push((key, self.value(depth + 1)?));
        }
        let mut seen = HashSet::with_capacity(entries.len());
        match entries.iter().find(|(key, _)| !seen.insert(key.as_str())) {
            Some((key, _)) => Err(malformed(format!("the key {key:?} twice in one map"))),
            None => Ok(Value::Map(entries)),
        }
    }

    fn deeper(&self, depth: usize) -> Result<(), ProtocolError> {
        if depth < VALUE_DEPTH_MAX {
            Ok(())
        } else {
            Err(malformed(format!("a value nested deeper than {VALUE_DEPTH_MAX}")))
        }
    }

    fn text(&mut self, kind: u8) -> Result<String, ProtocolError> {
        let length = match kind {
            0xa0..=0xbf => u64::from(kind & 0x1f),
            0xd9..=0xdb => self.uint(1 << (kind - 0xd9))?,
            _ => return Err(malformed(format!("0x{kind:02x} begins no str, where one must be"))),
        };
        let text = str::from_utf8(self.bytes(length)?).map_err(|_| malformed("a str in a value is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn uint(&mut self, width: usize) -> Result<u64, ProtocolError> {
        let bytes = self.bytes(width as u64)?;
        Ok(bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn bytes(&mut self, length: u64) -> Result<&[u8], ProtocolError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.input.split_off(..length).ok_or_else(|| malformed("a value is cut off"))
    }
}

fn malformed(what: impl Into<String>) -> ProtocolError {
    ProtocolError::new(1, what)
}
