//go:build !linux

package worker

// mayLink says that a sandbox gets a copy: nothing here would keep a process
// that a guest took over from changing the stored file through a link.
const mayLink = false
