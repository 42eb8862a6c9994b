//go:build !linux

package sandbox

// attempts has nothing to try: what a native program could do here is what any
// program of the user can.
func attempts(string, Targets) []Attempt { return nil }
