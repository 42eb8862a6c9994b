package keeper

import (
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	tasksv1 "gotong/proto/tasks/v1"
)

// maxNoteBytes bounds the encoded note beside a journal.
const maxNoteBytes = statementsMax*(maxStatementBytes+16) + 4096

// saveNote makes list and statements durable.
func (j *kept) saveNote() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	m := &tasksv1.KeptNote{Keepers: listToProto(j.list), Statements: j.said.raw}
	raw, err := proto.Marshal(m)
	j.mu.Unlock()
	if err != nil {
		return err
	}
	return j.journal.SaveNote(raw)
}

// readNote reads what saveNote stored. A statement whose signer is no member
// any more still stands: it was verified when it came.
func (j *kept) readNote(raw []byte) error {
	list, statements, err := parseNote(raw)
	if err != nil {
		return err
	}
	j.list = list
	for _, s := range statements {
		opened, err := OpenStatement(s)
		if err != nil || opened.Job != j.plan.Job {
			return fmt.Errorf("%w: statement in the note of job %s", ErrInvalid, j.plan.Job.Short())
		}
		j.said.add(s, opened)
	}
	return nil
}

func parseNote(raw []byte) (List, [][]byte, error) {
	if len(raw) == 0 {
		return List{}, nil, nil
	}
	if len(raw) > maxNoteBytes {
		return List{}, nil, fmt.Errorf("%w: note of %d bytes", ErrInvalid, len(raw))
	}
	var m tasksv1.KeptNote
	if err := proto.Unmarshal(raw, &m); err != nil {
		return List{}, nil, fmt.Errorf("%w: note: %w", ErrInvalid, err)
	}
	list, err := listFromProto(m.Keepers)
	if err != nil {
		return List{}, nil, err
	}
	return list, m.Statements, nil
}

// The file of a note: magic, CRC-32C of what follows, the note.
const (
	noteMagic = "gotong keepers 1"
	noteHead  = len(noteMagic) + 4
)

func noteSum(note []byte) uint32 { return crc32.Checksum(note, crc32.MakeTable(crc32.Castagnoli)) }
