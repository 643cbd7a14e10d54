//! Every change of the kernel that the gateway makes, as a value that prints itself.
