package invite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"gotong/grid/roster"
	invitev1 "gotong/proto/invite/v1"
)

const (
	// batchBytes is what goes into one batch before the next begins; one more
	// statement or record still fits a frame.
	batchBytes = MaxFrameBytes - 2*roster.MaxStatementBytes
	// maxRecordsBytes bounds the records that are accepted in an answer.
	maxRecordsBytes = 32 << 20
	// maxBatches bounds the frames of an answer: full ones are most of it.
	maxBatches = 2 + 2*(roster.MaxRosterBytes+maxRecordsBytes)/batchBytes
)

// sendBatches sends statements, with the times at which they came, and records
// until the last batch.
func sendBatches(ctx context.Context, conn JoinConn, statements, records [][]byte, learnt map[roster.Hash]time.Time) error {
	batch, size := &invitev1.Batch{}, 0
	send := func() error {
		if err := deadline(ctx, conn, FrameTimeout); err != nil {
			return err
		}
		err := writeFrame(conn, batch)
		batch, size = &invitev1.Batch{}, 0
		return err
	}
	add := func(list *[][]byte, item []byte) error {
		*list = append(*list, item)
		if size += len(item) + 16; size < batchBytes {
			return nil
		}
		return send()
	}
	for _, s := range statements {
		seconds := int64(0)
		if at, known := learnt[roster.HashOf(s)]; known {
			seconds = at.Unix()
		}
		batch.Learnt = append(batch.Learnt, seconds)
		if err := add(&batch.Statements, s); err != nil {
			return err
		}
	}
	for _, r := range records {
		if err := add(&batch.Records, r); err != nil {
			return err
		}
	}
	batch.Last = true
	return send()
}

// received is what came in batches.
type received struct {
	statements, records [][]byte
	learnt              map[roster.Hash]time.Time
}

// receiveBatches reads what sendBatches sent, within the bounds of a roster.
func receiveBatches(ctx context.Context, conn JoinConn) (received, error) {
	got := received{learnt: map[roster.Hash]time.Time{}}
	left := roster.MaxRosterBytes + maxRecordsBytes
	for range maxBatches {
		if err := deadline(ctx, conn, FrameTimeout); err != nil {
			return received{}, err
		}
		var batch invitev1.Batch
		if err := readFrame(conn, &batch); err != nil {
			return received{}, fmt.Errorf("receive the roster: %w", err)
		}
		if left -= proto.Size(&batch); left < 0 {
			break
		}
		for i, s := range batch.GetStatements() {
			if i < len(batch.GetLearnt()) && batch.GetLearnt()[i] > 0 {
				got.learnt[roster.HashOf(s)] = time.Unix(batch.GetLearnt()[i], 0)
			}
		}
		got.statements = append(got.statements, batch.GetStatements()...)
		got.records = append(got.records, batch.GetRecords()...)
		if len(got.statements) > roster.MaxStatements || len(got.records) > roster.MaxRecords {
			break
		}
		if batch.GetLast() {
			return got, nil
		}
	}
	return received{}, errors.New("receive the roster: more than a roster may hold")
}
