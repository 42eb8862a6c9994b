package storage

import (
	"encoding/binary"
	"fmt"
	"time"

	"gotong/grid/blake3"
)

// hash is the one hash of stored data: BLAKE3 with 32 bytes of output.
func hash(b []byte) [32]byte { return blake3.Sum256(b) }

// appendUnix appends t in whole seconds since 1970; the zero time is 0.
func appendUnix(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.BigEndian.AppendUint64(b, 0)
	}
	return binary.BigEndian.AppendUint64(b, uint64(t.Unix()))
}

func readUnix(b []byte) time.Time {
	seconds := int64(binary.BigEndian.Uint64(b))
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// maxFloor bounds retention floors. A floor is a promise that costs holders
// disk, so nonsense is refused where it is parsed.
const maxFloor = 10 * 366 * 24 * time.Hour

// appendSeconds appends d in whole seconds, rounded up so that a floor is
// never shorter than asked for.
func appendSeconds(b []byte, d time.Duration) []byte {
	return binary.BigEndian.AppendUint64(b, uint64((d+time.Second-1)/time.Second))
}

func readSeconds(b []byte) (time.Duration, error) {
	seconds := binary.BigEndian.Uint64(b)
	if seconds > uint64(maxFloor/time.Second) {
		return 0, fmt.Errorf("%w: retention floor of %d s", ErrCorrupt, seconds)
	}
	return time.Duration(seconds) * time.Second, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
