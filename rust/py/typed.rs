//! Objects that become extension objects, written without upstream's hook.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBytes, PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyMemoryView, PyString,
    PyTime, PyTimeAccess, PyTuple, PyTzInfoAccess,
};

use super::classes::Known;
use super::encode::{check, Done, Encoder, Rest, Stop};
use super::raw;
use super::ways::{Method, Way};
use crate::codec::ext;
use crate::codec::write::{self, Output};

impl<'py> Encoder<'_, 'py> {
    /// Write an object for which Python has to run.
    pub fn aloud(&mut self, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        if let Some(class) = self.codec.message_class(object) {
            return self.message_aloud(class, object, depth);
        }
        let known = match self.codec.classes.known(object) {
            Some(known) => known,
            None => self.codec.classes.learn(object)?,
        };
        if !known.is_usual(object) {
            return self.upstream(object);
        }
        match &known.way {
            Way::Upstream => self.upstream(object),
            Way::Method(method) => self.method(*method, &known.head, object, depth),
            _ if known.is_same() => {
                let done = self.written(&known, object, depth);
                self.finished(done)
            }
            _ if known.is_untried() => {
                // The first of its class is made both ways.
                let start = self.out.len();
                let done = self.written(&known, object, depth);
                self.finished(done)?;
                let theirs = self.codec.pack_upstream(object)?;
                known.note(self.out.written()[start..] == *theirs.as_bytes());
                self.out.truncate(start);
                self.out.put(theirs.as_bytes());
                Ok(())
            }
            _ => self.upstream(object),
        }
    }

    fn upstream(&mut self, object: &Bound<'py, PyAny>) -> Done {
        let bytes = self.codec.pack_upstream(object)?;
        self.out.put(bytes.as_bytes());
        Ok(())
    }

    /// Write what a method returns.
    pub fn method(
        &mut self,
        method: Method,
        head: &[u8],
        object: &Bound<'py, PyAny>,
        depth: usize,
    ) -> Done {
        check(depth)?;
        let value = object.call_method0(method.name)?;
        let start = self.out.begin_ext();
        write::array(&mut self.out, 3 + usize::from(method.tail.is_some()));
        self.out.put(head);
        self.value(&value, depth + 1)?;
        if let Some(tail) = method.tail {
            write::str(&mut self.out, tail);
        }
        self.out.end_ext(start, method.code);
        Ok(())
    }

    /// Write an object whose class is known, without running Python.
    pub fn typed(&mut self, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        check(depth)?;
        match self.codec.classes.known(object) {
            Some(known)
                if known.is_same()
                    && known.is_usual(object)
                    && !(matches!(known.way, Way::DateTime) && self.has_own_zone(object)) =>
            {
                self.written(&known, object, depth)
            }
            _ => self.block(object, depth),
        }
    }

    /// Whether a date has a zone that may be written in Python.
    fn has_own_zone(&self, date: &Bound<'py, PyAny>) -> bool {
        let Ok(date) = date.cast::<PyDateTime>() else {
            return true;
        };
        date.get_tzinfo().is_some_and(|zone| {
            let known = self.codec.classes.known(&zone);
            !known.is_some_and(|known| matches!(known.way, Way::TimeZone | Way::ZoneInfo))
        })
    }

    fn written(&mut self, known: &Known, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        let code = match known.way {
            Way::Snapshot => ext::SNAPSHOT,
            Way::Array => ext::ARRAY,
            Way::DateTime => ext::CALL_METHOD,
            Way::Time | Way::Dataclass(_) | Way::NamedTuple(_) => ext::CALL_KEYWORDS,
            Way::TimeDelta | Way::Date | Way::TimeZone | Way::Path | Way::Pattern | Way::Send => {
                ext::CALL_ARGUMENTS
            }
            _ => ext::CALL_ONE,
        };
        let start = self.out.begin_ext();
        let done = match code {
            ext::SNAPSHOT => self.quiet(
                &object.cast::<PyTuple>().map_err(PyErr::from)?.get_item(0)?,
                depth + 1,
            ),
            ext::ARRAY => self.array(object),
            _ => {
                let items = if code == ext::CALL_METHOD { 4 } else { 3 };
                write::array(&mut self.out, items);
                self.out.put(&known.head);
                self.payload(known, object, depth + 1)
            }
        };
        if matches!(done, Err(Stop::Blocked)) {
            self.rests.push(Rest::Ext(start, code));
        }
        done?;
        self.out.end_ext(start, code);
        Ok(())
    }

    /// What stands behind the module and the name.
    fn payload(&mut self, known: &Known, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        let py = self.py;
        match &known.way {
            Way::Dataclass(fields) => {
                write::map(&mut self.out, fields.len());
                let pairs = fields.iter().map(|name| {
                    let name = name.bind(py);
                    Ok((name.clone(), object.getattr(name)?))
                });
                // All are read before any is written, as upstream does.
                let pairs = pairs.collect::<PyResult<Vec<_>>>()?;
                self.pairs(pairs.into_iter(), depth)
            }
            Way::NamedTuple(fields) => {
                let tuple = object.cast::<PyTuple>().map_err(PyErr::from)?;
                if tuple.len() != fields.len() {
                    return Err(Stop::Doubt);
                }
                write::map(&mut self.out, fields.len());
                let names = fields.iter().map(|name| name.bind(py).clone());
                self.pairs(names.zip(tuple.iter()), depth)
            }
            Way::Enum => self.quiet(&object.getattr(intern!(py, "_value_"))?, depth),
            Way::Send => {
                let mut arguments = vec![
                    object.getattr(intern!(py, "node"))?,
                    object.getattr(intern!(py, "arg"))?,
                ];
                let timeout = intern!(py, "timeout");
                if raw::has_attribute(object, timeout) {
                    let timeout = object.getattr(timeout)?;
                    arguments.extend((!timeout.is_none()).then_some(timeout));
                }
                write::array(&mut self.out, arguments.len());
                self.items(arguments.into_iter(), depth)
            }
            Way::Items => {
                let items = object.try_iter()?.collect::<PyResult<Vec<_>>>()?;
                write::array(&mut self.out, items.len());
                self.items(items.into_iter(), depth)
            }
            Way::Path => {
                let parts = parts(object)?;
                write::array(&mut self.out, parts.len());
                self.items(parts.into_iter(), depth)
            }
            Way::Pattern => {
                write::array(&mut self.out, 2);
                self.quiet(&object.getattr(intern!(py, "pattern"))?, depth)?;
                self.quiet(&object.getattr(intern!(py, "flags"))?, depth)
            }
            Way::Uuid => {
                let number = object.getattr(intern!(py, "int"))?.extract::<u128>()?;
                write::str(&mut self.out, &format!("{number:032x}"));
                Ok(())
            }
            Way::Decimal => self.text(&object.str()?),
            Way::ZoneInfo => self.quiet(&object.getattr(intern!(py, "key"))?, depth),
            Way::DateTime => {
                let text = object.call_method0(intern!(py, "isoformat"))?;
                self.quiet(&text, depth)?;
                write::str(&mut self.out, "fromisoformat");
                Ok(())
            }
            Way::TimeDelta => {
                let delta = object.cast::<PyDelta>().map_err(PyErr::from)?;
                self.numbers([
                    delta.get_days(),
                    delta.get_seconds(),
                    delta.get_microseconds(),
                ])
            }
            Way::Date => {
                let date = object.cast::<PyDate>().map_err(PyErr::from)?;
                let (month, day) = (date.get_month(), date.get_day());
                self.numbers([date.get_year(), i32::from(month), i32::from(day)])
            }
            Way::Time => self.time(object.cast::<PyTime>().map_err(PyErr::from)?, depth),
            Way::TimeZone => {
                let arguments = object.call_method0("__getinitargs__")?;
                self.quiet(&arguments, depth)
            }
            Way::Upstream | Way::Method(_) | Way::Snapshot | Way::Array => Err(Stop::Doubt),
        }
    }

    /// The entries of a map that was announced already.
    fn pairs(
        &mut self,
        mut pairs: impl Iterator<Item = (Bound<'py, PyString>, Bound<'py, PyAny>)>,
        depth: usize,
    ) -> Done {
        while let Some((name, value)) = pairs.next() {
            self.text(&name)?;
            let done = self.quiet(&value, depth + 1);
            if matches!(done, Err(Stop::Blocked)) {
                let rest = pairs
                    .map(|(name, value)| (name.into_any(), value))
                    .collect();
                self.rests.push(Rest::Entries(rest, depth + 1));
                return done;
            }
            done?;
        }
        Ok(())
    }

    fn numbers(&mut self, numbers: [i32; 3]) -> Done {
        write::array(&mut self.out, numbers.len());
        for number in numbers {
            write::signed(&mut self.out, i64::from(number));
        }
        Ok(())
    }

    fn time(&mut self, time: &Bound<'py, PyTime>, depth: usize) -> Done {
        write::map(&mut self.out, 6);
        for (name, number) in [
            ("hour", u32::from(time.get_hour())),
            ("minute", u32::from(time.get_minute())),
            ("second", u32::from(time.get_second())),
            ("microsecond", time.get_microsecond()),
        ] {
            write::str(&mut self.out, name);
            write::unsigned(&mut self.out, u64::from(number));
        }
        write::str(&mut self.out, "tzinfo");
        let zone = match time.get_tzinfo() {
            Some(zone) => zone.into_any(),
            None => self.py.None().into_bound(self.py),
        };
        let done = self.quiet(&zone, depth + 1);
        let fold = u64::from(time.get_fold());
        if matches!(done, Err(Stop::Blocked)) {
            let name = PyString::new(self.py, "fold").into_any();
            let fold = fold.into_pyobject(self.py).map_err(PyErr::from)?.into_any();
            self.rests
                .push(Rest::Entries(vec![(name, fold)], depth + 1));
        }
        done?;
        write::str(&mut self.out, "fold");
        write::unsigned(&mut self.out, fold);
        Ok(())
    }

    /// `[dtype, shape, order, bytes]`
    fn array(&mut self, array: &Bound<'py, PyAny>) -> Done {
        let py = self.py;
        let flags = array.getattr(intern!(py, "flags"))?;
        let is_c = flags.getattr(intern!(py, "c_contiguous"))?.is_truthy()?;
        let is_f = !is_c && flags.getattr(intern!(py, "f_contiguous"))?.is_truthy()?;
        write::array(&mut self.out, 4);
        let dtype = array.getattr(intern!(py, "dtype"))?;
        self.quiet(&dtype.getattr(intern!(py, "str"))?, 0)?;
        self.quiet(&array.getattr(intern!(py, "shape"))?, 0)?;
        write::str(&mut self.out, if is_f { "F" } else { "C" });
        if is_c {
            // The view refuses what has no format in the buffer protocol.
            let view = PyMemoryView::from(array)?;
            let written = raw::with_buffer(&view, |bytes| write::bin(&mut self.out, bytes));
            return written.ok_or(Stop::Doubt);
        }
        let bytes = array.call_method1(intern!(py, "tobytes"), ("A",))?;
        write::bin(
            &mut self.out,
            bytes.cast::<PyBytes>().map_err(PyErr::from)?.as_bytes(),
        );
        Ok(())
    }
}

/// A path's parts, from where the standard library keeps them: its property runs Python.
fn parts<'py>(path: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let py = path.py();
    // Up to Python 3.11.
    if let Some(parts) = path.getattr_opt(intern!(py, "_parts"))? {
        return parts.try_iter()?.collect();
    }
    // From 3.12 on, once they were asked for.
    let Some(tail) = path.getattr_opt(intern!(py, "_tail_cached"))? else {
        return path.getattr(intern!(py, "parts"))?.try_iter()?.collect();
    };
    let drive = path.getattr(intern!(py, "_drv"))?;
    let anchor = drive.add(path.getattr(intern!(py, "_root"))?)?;
    let first = anchor.is_truthy()?.then_some(Ok(anchor));
    first.into_iter().chain(tail.try_iter()?).collect()
}
