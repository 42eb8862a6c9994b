//go:build linux && !amd64 && !arm64

package sandbox

// The engine does not compile for this processor, so no guest runs here.
var allowedHere []uint32

// deniedNativeHere is what only this processor has of deniedNative.
var deniedNativeHere []uint32
