package cli

import "golang.org/x/sys/unix"

// clockSynced reports whether the kernel takes its clock for right.
func clockSynced() (bool, error) {
	var state unix.Timex
	_, err := unix.Adjtimex(&state)
	return state.Status&unix.STA_UNSYNC == 0, err
}
