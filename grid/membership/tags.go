package membership

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Gossip tags of a peer: its version, what it is doing, and the number of its
// own signed record. Serf has 512 bytes for all of them; everything else goes
// by RPC. Tags are hints: any member could have made them up.
const (
	tagVersion = "v"
	tagState   = "s"
	tagRecord  = "n"

	maxTagVersion = 32
)

// What a peer says it is doing.
const (
	stateUp       = "up"
	stateStopping = "stop" // comes back
	stateLeaving  = "left" // does not come back
)

var errTags = errors.New("malformed gossip tags")

type tags struct {
	version string
	state   string
	record  uint64
}

func (t tags) encode() map[string]string {
	version := t.version
	for len(version) > maxTagVersion || !utf8.ValidString(version) {
		version = version[:len(version)-1]
	}
	return map[string]string{
		tagVersion: version,
		tagState:   t.state,
		tagRecord:  strconv.FormatUint(t.record, 10),
	}
}

// parseTags reads the tags of another peer. Tags that this version does not
// know are left to later ones; those that it knows must be right.
func parseTags(m map[string]string) (tags, error) {
	t := tags{version: m[tagVersion], state: m[tagState]}
	if len(t.version) > maxTagVersion || !utf8.ValidString(t.version) {
		return tags{}, fmt.Errorf("%w: version of %d bytes", errTags, len(t.version))
	}
	switch t.state {
	case stateUp, stateStopping, stateLeaving:
	default:
		return tags{}, fmt.Errorf("%w: state %.16q", errTags, t.state)
	}
	number, err := strconv.ParseUint(m[tagRecord], 10, 64)
	if err != nil || strconv.FormatUint(number, 10) != m[tagRecord] {
		return tags{}, fmt.Errorf("%w: record number", errTags)
	}
	t.record = number
	return t, nil
}
