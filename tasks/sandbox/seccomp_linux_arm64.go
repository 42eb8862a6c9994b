package sandbox

import "golang.org/x/sys/unix"

var allowedHere = []uint32{unix.SYS_FSTATAT}

// deniedNativeHere is what only this processor has of deniedNative.
var deniedNativeHere = []uint32{unix.SYS_KEXEC_FILE_LOAD}
