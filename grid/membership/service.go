package membership

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"gotong/grid"
	"gotong/grid/roster"
	gridv1 "gotong/proto/grid/v1"
)

var errRequest = errors.New("malformed request")

// service answers other members. Whoever may call it is decided before it:
// members only.
type service struct {
	gridv1.UnimplementedGridServer
	m *Membership
}

// Service returns the server of the Grid service, for members only.
func (m *Membership) Service() gridv1.GridServer { return &service{m: m} }

// SyncRoster answers statements that the caller lacks, and asks for others.
func (s *service) SyncRoster(_ context.Context, r *gridv1.SyncRosterRequest) (*gridv1.SyncRosterResponse, error) {
	own := s.m.cfg.Roster.Digest()
	answer := &gridv1.SyncRosterResponse{Digest: own[:]}
	if string(r.GetDigest()) == string(own[:]) {
		return answer, nil
	}
	have, err := parseHashes(r.GetHave())
	if err != nil {
		return nil, invalid(err)
	}
	answer.Statements = limitBytes(s.m.cfg.Roster.Missing(have))
	answer.Want = hashList(s.m.cfg.Roster.Lacking(have))
	return answer, nil
}

// Offer takes statements that an answer of SyncRoster asked for.
func (s *service) Offer(_ context.Context, r *gridv1.OfferRequest) (*gridv1.OfferResponse, error) {
	if _, err := s.m.mergeStatements(r.GetStatements()); err != nil {
		return nil, invalid(err)
	}
	return &gridv1.OfferResponse{}, nil
}

// Records answers records that the caller lacks, and asks for others.
func (s *service) Records(_ context.Context, r *gridv1.RecordsRequest) (*gridv1.RecordsResponse, error) {
	numbers, err := parseNumbers(r.GetHave())
	if err != nil {
		return nil, invalid(err)
	}
	subjects, err := parsePeers(r.GetPeers())
	if err != nil {
		return nil, invalid(err)
	}
	if len(subjects) == 0 {
		for _, member := range s.m.cfg.Roster.View().Members() {
			subjects = append(subjects, member.ID)
		}
	}
	var newer [][]byte
	answer := &gridv1.RecordsResponse{}
	for _, id := range subjects {
		record, encoded, ok := s.m.cfg.Records.Get(id)
		switch theirs := numbers[id]; {
		case ok && record.Number > theirs:
			newer = append(newer, encoded)
		case record.Number < theirs:
			answer.Want = append(answer.Want, id[:])
		}
	}
	answer.Records = limitBytes(newer)
	return answer, nil
}

// OfferRecords takes records.
func (s *service) OfferRecords(_ context.Context, r *gridv1.OfferRecordsRequest) (*gridv1.OfferRecordsResponse, error) {
	if len(r.GetRecords()) > maxHave {
		return nil, invalid(fmt.Errorf("%w: %d records", errRequest, len(r.GetRecords())))
	}
	news, err := s.m.takeRecords(r.GetRecords())
	s.m.relays.add(news)
	if err != nil {
		return nil, invalid(err)
	}
	return &gridv1.OfferRecordsResponse{}, nil
}

// Info answers the present load.
func (s *service) Info(context.Context, *gridv1.InfoRequest) (*gridv1.InfoResponse, error) {
	i := s.m.cfg.Info()
	return &gridv1.InfoResponse{
		PledgeBytes: i.PledgeBytes, UsedBytes: i.UsedBytes, FreeBytes: i.FreeBytes,
		Slots: uint32(max(i.Slots, 0)), SlotsFree: uint32(max(i.SlotsFree, 0)), Version: i.Version,
		ClockUnixMilli: time.Now().UnixMilli(),
	}, nil
}

// Info asks a peer for its present load.
func (m *Membership) Info(ctx context.Context, peer grid.PeerID) (Info, error) {
	client, err := m.cfg.Clients(peer)
	if err != nil {
		return Info{}, fmt.Errorf("membership: info: %w", err)
	}
	asked := time.Now()
	r, err := client.Info(ctx, &gridv1.InfoRequest{})
	if err != nil {
		return Info{}, fmt.Errorf("membership: info: %w", err)
	}
	ahead := time.UnixMilli(r.GetClockUnixMilli()).Sub(asked.Round(0).Add(time.Since(asked) / 2))
	return Info{
		PledgeBytes: r.GetPledgeBytes(), UsedBytes: r.GetUsedBytes(), FreeBytes: r.GetFreeBytes(),
		Slots: int(r.GetSlots()), SlotsFree: int(r.GetSlotsFree()), Version: r.GetVersion(),
		Ahead: ahead, HasClock: r.GetClockUnixMilli() != 0,
	}, nil
}

func invalid(err error) error { return status.Error(codes.InvalidArgument, err.Error()) }

func hashList(hashes []roster.Hash) [][]byte {
	list := make([][]byte, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	return list
}

func parseHashes(list [][]byte) ([]roster.Hash, error) {
	if len(list) > maxHave {
		return nil, fmt.Errorf("%w: %d hashes", errRequest, len(list))
	}
	hashes := make([]roster.Hash, len(list))
	for i, b := range list {
		if len(b) != len(hashes[i]) {
			return nil, fmt.Errorf("%w: hash of %d bytes", errRequest, len(b))
		}
		copy(hashes[i][:], b)
	}
	return hashes, nil
}

func parsePeers(list [][]byte) ([]grid.PeerID, error) {
	if len(list) > maxHave {
		return nil, fmt.Errorf("%w: %d peers", errRequest, len(list))
	}
	peers := make([]grid.PeerID, len(list))
	for i, b := range list {
		if len(b) != len(peers[i]) {
			return nil, fmt.Errorf("%w: peer id of %d bytes", errRequest, len(b))
		}
		copy(peers[i][:], b)
	}
	return peers, nil
}

func parseNumbers(list []*gridv1.RecordNumber) (map[grid.PeerID]uint64, error) {
	if len(list) > maxHave {
		return nil, fmt.Errorf("%w: %d record numbers", errRequest, len(list))
	}
	numbers := make(map[grid.PeerID]uint64, len(list))
	for _, n := range list {
		peers, err := parsePeers([][]byte{n.GetPeer()})
		if err != nil {
			return nil, err
		}
		numbers[peers[0]] = n.GetNumber()
	}
	return numbers, nil
}
