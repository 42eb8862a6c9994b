package taskrpc

import (
	"bytes"
	"slices"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/storage"
	"gotong/tasks"
)

// storedToProto lists what is stored, ordered by content.
func storedToProto(all map[tasks.ContentID]tasks.Stored) []*tasksv1.Stored {
	var out []*tasksv1.Stored
	for id, s := range all {
		out = append(out, oneStoredToProto(id[:], s))
	}
	slices.SortFunc(out, func(a, b *tasksv1.Stored) int { return bytes.Compare(a.Content, b.Content) })
	return out
}

func oneStoredToProto(content []byte, s tasks.Stored) *tasksv1.Stored {
	out := &tasksv1.Stored{Content: content, Size: s.Size}
	for i := range s.Segments {
		out.Segments = append(out.Segments, s.Segments[i][:])
	}
	for i := range s.Holders {
		out.Holders = append(out.Holders, s.Holders[i][:])
	}
	return out
}

// storedFromProto reads what storedToProto wrote; nil when there is nothing.
func storedFromProto(list []*tasksv1.Stored) (map[tasks.ContentID]tasks.Stored, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) > tasks.MaxInputs+2 {
		return nil, invalid("%d stored contents", len(list))
	}
	all := make(map[tasks.ContentID]tasks.Stored, len(list))
	for _, p := range list {
		content, s, err := oneStoredFromProto(p)
		if err != nil {
			return nil, err
		}
		id, ok := parseContentID(content)
		if _, twice := all[id]; !ok || id.IsZero() || twice {
			return nil, invalid("stored content without a proper name")
		}
		all[id] = s
	}
	return all, nil
}

func oneStoredFromProto(p *tasksv1.Stored) (content []byte, s tasks.Stored, err error) {
	if len(p.GetSegments()) > tasks.MaxStoredSegments || len(p.GetHolders()) > tasks.MaxStoredHolders {
		return nil, s, invalid("content stored in %d segments", len(p.GetSegments()))
	}
	s.Size = p.GetSize()
	for _, raw := range p.GetSegments() {
		var id storage.SegmentID
		if copy(id[:], raw) != len(id) || len(raw) != len(id) {
			return nil, s, invalid("bad segment id")
		}
		s.Segments = append(s.Segments, id)
	}
	for _, raw := range p.GetHolders() {
		var id grid.PeerID
		if copy(id[:], raw) != len(id) || len(raw) != len(id) {
			return nil, s, invalid("bad peer id")
		}
		s.Holders = append(s.Holders, id)
	}
	return p.GetContent(), s, s.Validate()
}
