//go:build !linux

package sandbox

var testCommands map[string]func(string) int
