package roster

import (
	"encoding/binary"
	"fmt"
	"time"
)

// A note in the roster's file says when the statements behind it, up to the next
// note, came: a zero byte, which is no kind of statement, and 8 bytes Unix
// seconds.
const noteBytes = 1 + 8

func noteOf(at time.Time) []byte {
	return binary.BigEndian.AppendUint64([]byte{0}, uint64(at.Unix()))
}

// splitNotes takes the notes out of the items of a file.
func splitNotes(items [][]byte) (statements [][]byte, learnt map[Hash]time.Time, err error) {
	learnt = map[Hash]time.Time{}
	var at time.Time
	for i, item := range items {
		if len(item) == 0 || item[0] != 0 {
			statements = append(statements, item)
			if !at.IsZero() {
				learnt[HashOf(item)] = at
			}
			continue
		}
		if len(item) != noteBytes {
			return nil, nil, fmt.Errorf("item %d: a note of %d bytes", i, len(item))
		}
		at = time.Unix(int64(binary.BigEndian.Uint64(item[1:])), 0)
	}
	return statements, learnt, nil
}
