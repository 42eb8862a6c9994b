package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// Names of sources of the user's input; any other is the path of a file whose
// time of change is the last input.
const (
	SourceAuto   = "auto"
	SourceLogind = "logind"
	SourceTTY    = "tty"
	SourceX11    = "x11"
)

// ValidSource returns why text names no source of input.
func ValidSource(text string) error {
	if ownSource(text) || filepath.IsAbs(text) {
		return nil
	}
	return fmt.Errorf("%q is not auto, logind, tty, x11 or the absolute path of a file", text)
}

// ownSource reports whether text names no file.
func ownSource(text string) bool {
	return text == SourceAuto || text == SourceLogind || text == SourceTTY || text == SourceX11
}

// stamp is what a source says now: when the last input was, by the clock of the
// wall. Zero: never, as far as it knows.
type stamp struct {
	at     time.Time
	source string
	noUser bool
}

// source asks for the last input.
type source func() (stamp, error)

// never is the time without input of a machine that nobody touched yet.
const never = 10 * 365 * 24 * time.Hour

// wakeGap is how much further the clock of the wall goes than the running time
// when the machine slept, or when its clock was set.
const wakeGap = 10 * time.Second

// inputs turns the stamps of a source into a time without input, which does not
// jump when the clock is set: between two inputs it grows with running time.
type inputs struct {
	ask    source
	has    bool
	stamp  time.Time
	idle   time.Duration
	looked time.Time // with the running time
}

// look asks the source.
func (in *inputs) look(now time.Time) Input {
	s, err := in.ask()
	if err != nil {
		in.has = false
		return Input{Why: err.Error()}
	}
	if s.noUser {
		in.has = false
		return Input{NoUser: true, Known: true, Idle: never, Source: s.source}
	}
	in.advance(s.at, now)
	return Input{Known: true, Idle: in.idle, Source: s.source}
}

func (in *inputs) advance(at, now time.Time) {
	passed := now.Sub(in.looked) // running time
	switch {
	case !in.has || !at.Equal(in.stamp):
		in.idle = never
		if !at.IsZero() {
			in.idle = min(never, max(0, now.Sub(at)))
		}
	case slept(passed, now.Round(0).Sub(in.looked.Round(0))):
		// Whoever woke the machine may not have touched a key yet; if it was only
		// that the clock was set, tasks wait a little.
		in.idle = 0
	default:
		in.idle = min(never, in.idle+max(0, passed))
	}
	in.has, in.stamp, in.looked = true, at, now
}

// slept reports whether the machine slept between two looks, or its clock was
// set forward.
func slept(passed, wall time.Duration) bool { return wall > passed+wakeGap }

// fileSource takes the time of change of a file.
func fileSource(path string) source {
	return func() (stamp, error) {
		s := stamp{source: path}
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return s, nil // no input yet
		case err != nil:
			return s, err
		}
		s.at = info.ModTime()
		return s, nil
	}
}

var ttyName = regexp.MustCompile(`^tty(\d+|S\d+|USB\d+)$`)

// ttySource takes the newest time at which a program read from a terminal below
// dev. Not the time of change: output moves that.
func ttySource(dev string) source {
	return func() (stamp, error) {
		s := stamp{source: "terminals"}
		var paths []string
		for _, part := range []string{"", "pts"} {
			entries, err := os.ReadDir(filepath.Join(dev, part))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return s, err
			}
			for _, e := range entries {
				_, number := strconv.Atoi(e.Name())
				if part == "" && ttyName.MatchString(e.Name()) || part != "" && number == nil {
					paths = append(paths, filepath.Join(dev, part, e.Name()))
				}
			}
		}
		if len(paths) == 0 {
			return s, fmt.Errorf("no terminal below %s", dev)
		}
		for _, path := range paths {
			if at, ok := readTime(path); ok && at.After(s.at) {
				s.at, s.source = at, "terminal "+path
			}
		}
		return s, nil
	}
}
