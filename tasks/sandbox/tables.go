package sandbox

import (
	"encoding/binary"
	"fmt"
	"math"
)

// maxTableEntries bounds all tables of a guest together. The engine has no
// limit of its own, and keeps them on the heap of this process.
const maxTableEntries = 1 << 20

const (
	limitsWithoutMax = 0
	limitsWithMax    = 1
)

// table is one entry of a table section.
type table struct {
	kind     byte
	min, max uint32
}

// limitTables returns the body of a table section with a maximum for every
// table, so that all of them stay within maxTableEntries: a guest sees a larger
// table.grow fail. A module that begins with more is refused.
func limitTables(b []byte) ([]byte, error) {
	tables, err := parseTables(b)
	if err != nil {
		return nil, err
	}
	need := uint64(0)
	for _, t := range tables {
		need += uint64(t.min)
	}
	if need > maxTableEntries {
		return nil, fmt.Errorf("its tables have %d entries, more than %d", need, maxTableEntries)
	}
	out := binary.AppendUvarint(nil, uint64(len(tables)))
	for _, t := range tables {
		room := uint32((maxTableEntries - need) / uint64(len(tables)))
		out = append(out, t.kind, limitsWithMax)
		out = binary.AppendUvarint(out, uint64(t.min))
		out = binary.AppendUvarint(out, uint64(min(t.max, t.min+room)))
	}
	return out, nil
}

func parseTables(b []byte) ([]table, error) {
	count, at, err := takeSize(b, 0)
	if err != nil {
		return nil, err
	}
	var tables []table
	for range count {
		if len(b)-at < 2 {
			return nil, errWasm
		}
		t := table{kind: b[at], max: math.MaxUint32}
		flag := b[at+1]
		if t.min, at, err = takeSize(b, at+2); err != nil {
			return nil, err
		}
		switch flag {
		case limitsWithoutMax:
		case limitsWithMax:
			if t.max, at, err = takeSize(b, at); err != nil {
				return nil, err
			}
		default:
			return nil, errWasm
		}
		if t.max < t.min {
			return nil, errWasm
		}
		tables = append(tables, t)
	}
	if at != len(b) {
		return nil, errWasm
	}
	return tables, nil
}
