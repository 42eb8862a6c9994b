package contents

import (
	"context"
	"fmt"
	"math/rand/v2"

	"gotong/storage"
	"gotong/storage/segments"
	"gotong/tasks"
)

// heldSample is how many segments of a content Held asks for, chosen at random.
// Of one of which a tenth is not there it finds that out with 96 %.
const heldSample = 32

// Held returns nil when, for each of some segments of a content, it is one of
// the job and peers say that they have as many shards as rebuild it. They may
// lie: whoever reads the content finds that. The error says what is wrong.
func (c *Contents) Held(ctx context.Context, job Job, s tasks.Stored) error {
	if err := s.Validate(); err != nil {
		return err
	}
	ids := make([]storage.SegmentID, 0, heldSample)
	for _, i := range rand.Perm(len(s.Segments))[:min(len(s.Segments), heldSample)] {
		ids = append(ids, s.Segments[i])
	}
	known, err := c.segments.Locate(ctx, ids, s.Holders)
	if err != nil {
		return err
	}
	asks := make([]segments.Ask, len(ids))
	need := make([]int, len(ids))
	for i, id := range ids {
		header, err := c.segments.Header(ctx, id, known[id])
		if err != nil {
			return fmt.Errorf("it is not stored where its worker says: %w", err)
		}
		if g, err := storage.OpenJobGrant(header.Grant); header.Kind != storage.GrantJob || err != nil || g.Job != job.ID {
			return fmt.Errorf("it is not stored where its worker says: segment %s is not of this job: %w", id.Short(), storage.ErrDenied)
		}
		need[i] = header.Redundancy.K
		asks[i] = segments.Ask{ID: id, N: header.Redundancy.N, Holders: known[id]}
	}
	surveys, err := c.segments.Survey(ctx, asks)
	if err != nil {
		return err
	}
	for i := range surveys {
		if have := len(surveys[i].Stored()); have < need[i] {
			return fmt.Errorf("it is not stored where its worker says: %d shards of segment %s are there, %d are needed: %w",
				have, ids[i].Short(), need[i], storage.ErrTooFewShards)
		}
	}
	return nil
}
