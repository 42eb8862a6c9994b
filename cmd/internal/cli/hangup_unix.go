//go:build !windows

package cli

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// hangups returns the SIGHUPs that come from now on; none when standard input is a
// terminal, where one means that the terminal is gone and ends the process.
func hangups() <-chan os.Signal {
	if term.IsTerminal(int(os.Stdin.Fd())) {
		return nil
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGHUP)
	return got
}
