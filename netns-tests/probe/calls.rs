//! What leads out without a packet: characters that are typed into a terminal, keys that the kernel asks for in the
//! machine's namespaces, sockets of a family that knows no network namespaces. Says what the kernel answers to each.

use std::io;

/// Tries each, `text` into the terminal at standard input; one line each, with the number of the error.
pub fn say(text: &str) {
    let typed: Vec<_> = text.bytes().map(typed).collect();
    let worst = typed.into_iter().max().unwrap_or_default();
    println!("typing: {worst}");
    println!("key: {}", key());
    println!("ring: {}", ring());
    for (name, domain) in [("vsock", libc::AF_VSOCK), ("inet", libc::AF_INET)] {
        println!("{name}: {}", socket(domain));
    }
}

/// 0, or errno(3).
fn answer(value: impl Into<i64>) -> i32 {
    if value.into() < 0 {
        io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    } else {
        0
    }
}

#[expect(unsafe_code, reason = "rustix does not type into terminals")]
fn typed(byte: u8) -> i32 {
    // SAFETY: the kernel reads one byte, which lives until the call returns.
    answer(unsafe { libc::ioctl(0, libc::TIOCSTI, &raw const byte) })
}

/// Asks for a key that nobody has, without a word to whoever could make it: no program is started for it.
#[expect(unsafe_code, reason = "rustix knows no keys")]
fn key() -> i32 {
    let (kind, name) = (c"user".as_ptr(), c"vpngw-nothing".as_ptr());
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: two strings with an end; a null pointer is no text for whoever makes keys.
    answer(unsafe { libc::syscall(libc::SYS_request_key, kind, name, nothing, 0) })
}

#[expect(unsafe_code, reason = "no library makes it without more")]
fn ring() -> i32 {
    // SAFETY: the kernel refuses a null pointer.
    answer(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) })
}

#[expect(unsafe_code, reason = "a family that rustix has no name for")]
fn socket(domain: libc::c_int) -> i32 {
    // SAFETY: numbers; it is closed when this process ends.
    answer(unsafe { libc::socket(domain, libc::SOCK_STREAM, 0) })
}
