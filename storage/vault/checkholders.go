package vault

import (
	"errors"
	"fmt"
	"slices"

	"gotong/storage"
	"gotong/storage/segments"
)

// holders asks about every segment.
func (c *check) holders() error {
	total := uint64(len(c.parts) + len(c.rows))
	var batch []segmentRow
	flush := func() error {
		c.o.Progress(CheckProgress{"holders", c.report.Segments, total})
		err := c.survey(batch)
		batch = batch[:0]
		return err
	}
	for _, part := range c.parts {
		batch = append(batch, part.row)
	}
	for _, row := range c.rows {
		full, err := c.v.index.segment(row.number)
		if errors.Is(err, errNoSegment) {
			continue
		}
		if err != nil {
			return err
		}
		if batch = append(batch, full); len(batch) >= surveyedAtOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func (c *check) survey(rows []segmentRow) error {
	if len(rows) == 0 {
		return nil
	}
	asks := make([]segments.Ask, len(rows))
	for i, row := range rows {
		asks[i] = segments.Ask{ID: row.id, N: int(row.n), Holders: row.holders}
	}
	answers, err := c.v.segments.Survey(c.ctx, asks)
	if err != nil {
		return err
	}
	for i := range answers {
		c.judge(rows[i], &answers[i])
	}
	return nil
}

func (c *check) judge(row segmentRow, answer *segments.Survey) {
	n, k := int(row.n), int(row.k)
	if n == 0 { // a part of an old catalogue
		n, k = max(1, len(answer.Shards)), 1
	}
	stored, readable := 0, 0
	for _, copies := range answer.Shards {
		has := func(state storage.ShardState) bool {
			return slices.ContainsFunc(copies, func(c segments.Copy) bool { return c.State == state })
		}
		if has(storage.ShardStored) {
			stored++
		}
		if has(storage.ShardStored) || has(storage.ShardTrash) {
			readable++
		}
	}
	c.report.Segments++
	c.report.ShardsChecked += uint64(n)
	c.report.ShardsBad += uint64(max(0, n-stored))
	c.report.Silent += uint64(len(answer.Silent))
	why := ""
	if len(answer.Silent) > 0 {
		why = fmt.Sprintf("; holders that did not answer: %d", len(answer.Silent))
	}
	switch {
	case readable < k:
		c.report.Lost++
		if answer.All && len(answer.Silent) == 0 {
			c.v.markLost(row)
		}
		c.report.problem("segment %s: %d of %d shards are there, and it takes %d%s", row.id.Short(), readable, n, k, why)
	case answer.Deleted && stored < k:
		c.report.Lost++
		c.report.problem("segment %s was deleted, and is readable only until the holders empty their trash", row.id.Short())
	case stored < n:
		c.report.Degraded++
	default:
		c.report.Healthy++
	}
}
