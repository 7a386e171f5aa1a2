//! What C passes, as Rust sees it: null is an error, and everything else is what the header asks for.

use crate::status::{Ending, SnncStatus, wrong};
use snnc_ir::Diagnostic;
use std::ffi::{CStr, c_char};

/// The text at a pointer.
///
/// # Errors
/// It is null, or no UTF-8.
pub fn text<'a>(pointer: *const c_char, argument: &str) -> Result<&'a str, Diagnostic> {
    if pointer.is_null() {
        return Err(wrong(argument, "is null"));
    }
    // SAFETY: the header asks for a text that ends in a zero byte and lives for the call; tested by `examples/c`.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|e| wrong(argument, format!("is no UTF-8: {e}")))
}

/// Numbers at a pointer; with a count of 0 it may be null.
///
/// # Errors
/// It is null or not aligned, or there are more than memory can hold.
pub fn numbers<'a, T>(pointer: *const T, count: usize, argument: &str) -> Result<&'a [T], Diagnostic> {
    if count == 0 {
        return Ok(&[]);
    }
    check(pointer, count, argument)?;
    // SAFETY: the header asks for `count` numbers that nobody changes during the call; null, alignment and size are checked.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

fn check<T>(pointer: *const T, count: usize, argument: &str) -> Result<(), Diagnostic> {
    if pointer.is_null() {
        return Err(wrong(argument, "is null"));
    }
    if !pointer.is_aligned() {
        return Err(wrong(argument, "is not aligned"));
    }
    match count.checked_mul(size_of::<T>()) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(()),
        _ => Err(wrong(argument, format!("has {count} elements, which no memory holds"))),
    }
}

/// The thing behind a handle.
///
/// # Errors
/// The handle is null.
pub fn handle<'a, T>(pointer: *const T, argument: &str) -> Result<&'a T, Diagnostic> {
    check(pointer, 1, argument)?;
    // SAFETY: a handle comes from this library and was not freed; the header says so.
    Ok(unsafe { &*pointer })
}

/// Writes one result.
///
/// # Errors
/// The pointer is null.
pub fn give<T>(pointer: *mut T, value: T, argument: &str) -> Result<(), Diagnostic> {
    check(pointer, 1, argument)?;
    // SAFETY: the header asks for room for one; null and alignment are checked.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Writes numbers into room for `room` of them, and how many there are to `count`, which may be null.
///
/// # Errors
/// The room is too small, which is told by `count`.
pub fn give_all<T: Copy>(
    values: &[T],
    pointer: *mut T,
    room: usize,
    count: *mut usize,
    argument: &str,
) -> Result<(), Ending> {
    if !count.is_null() {
        give(count, values.len(), "count")?;
    }
    if values.len() > room {
        return Err(Ending::Other(SnncStatus::SNNC_NO_ROOM));
    }
    if values.is_empty() {
        return Ok(());
    }
    check(pointer, room, argument)?;
    // SAFETY: there is room for at least as many, by the header's promise, and it is not the library's memory.
    unsafe { pointer.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    Ok(())
}

/// Gives a thing to the caller, who frees it.
pub fn lend<T>(thing: T, pointer: *mut *mut T, argument: &str) -> Result<(), Diagnostic> {
    check(pointer, 1, argument)?;
    give(pointer, Box::into_raw(Box::new(thing)), argument)
}

/// Frees a thing that was lent; null is nothing to free.
pub fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: it comes from `lend` and is freed once, as the header asks.
        drop(unsafe { Box::from_raw(pointer) });
    }
}
