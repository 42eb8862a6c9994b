package roster

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	"gotong/grid/identity"
	rosterv1 "gotong/proto/roster/v1"
)

// DomainRecord is the signing domain of peer records.
const DomainRecord identity.Domain = "gotong record v1"

// Bounds of an encoded record, beside those of grid.Record.
const (
	MaxRecordBytes = 8 << 10
	maxShortText   = 64 // bytes of version, operating system and architecture
	maxSlots       = 1 << 16
	boxKeyBytes    = 32
)

// ErrRecord says that bytes are not a valid record, or that values do not make
// one. Test with errors.Is.
var ErrRecord = errors.New("not a valid peer record")

// SignRecord signs what a peer says of itself. The record's Peer is that of the
// node key, whatever was set. It fails for values outside the bounds of
// grid.Record (ErrRecord).
func SignRecord(node identity.NodeKey, r grid.Record) ([]byte, error) {
	r.Peer = node.PeerID()
	if err := checkRecord(r); err != nil {
		return nil, err
	}
	m := &rosterv1.PeerRecord{
		Number: r.Number, Name: r.Name, Site: r.Site, Addresses: r.Addresses,
		PledgeBytes: r.PledgeBytes, Slots: uint32(r.Slots), Version: r.Version, Os: r.OS, Arch: r.Arch,
		BoxKey: r.BoxKey, MemoryBytes: r.MemoryBytes,
	}
	if !r.Created.IsZero() {
		m.Created = r.Created.Unix()
	}
	body, err := proto.Marshal(m)
	if err != nil { // text that is not UTF-8
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	encoded := identity.Sign(node.Private(), DomainRecord, body).Encode()
	if len(encoded) > MaxRecordBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrRecord, len(encoded), MaxRecordBytes)
	}
	return encoded, nil
}

// ParseRecord verifies and reads a record. It does not know whether its subject
// is a member. Fields that this version does not know are ignored: a record
// decides nothing that peers have to agree on.
func ParseRecord(encoded []byte) (grid.Record, error) {
	if len(encoded) > MaxRecordBytes {
		return grid.Record{}, fmt.Errorf("%w: %d bytes", ErrRecord, len(encoded))
	}
	signed, err := identity.ParseSigned(encoded)
	if err == nil {
		err = signed.Verify(DomainRecord)
	}
	var m rosterv1.PeerRecord
	if err == nil {
		err = proto.Unmarshal(signed.Body, &m)
	}
	if err != nil {
		return grid.Record{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if m.GetSlots() > maxSlots {
		return grid.Record{}, fmt.Errorf("%w: %d slots", ErrRecord, m.GetSlots())
	}
	r := grid.Record{
		Peer: grid.PeerIDOf(signed.Key), Number: m.GetNumber(), Name: m.GetName(), Site: m.GetSite(),
		Addresses: m.GetAddresses(), PledgeBytes: m.GetPledgeBytes(), Slots: int(m.GetSlots()),
		Version: m.GetVersion(), OS: m.GetOs(), Arch: m.GetArch(), BoxKey: bytes.Clone(m.GetBoxKey()), MemoryBytes: m.GetMemoryBytes(),
	}
	if m.GetCreated() != 0 {
		r.Created = time.Unix(m.GetCreated(), 0).UTC()
	}
	return r, checkRecord(r)
}

func checkRecord(r grid.Record) error {
	switch {
	case r.Number == 0 || r.Number == math.MaxUint64: // the last would leave no room for a correction
		return fmt.Errorf("%w: number %d", ErrRecord, r.Number)
	case len(r.Name) > grid.MaxNameLen, len(r.Site) > grid.MaxNameLen:
		return fmt.Errorf("%w: name or site of more than %d bytes", ErrRecord, grid.MaxNameLen)
	case len(r.Version) > maxShortText, len(r.OS) > maxShortText, len(r.Arch) > maxShortText:
		return fmt.Errorf("%w: version or platform of more than %d bytes", ErrRecord, maxShortText)
	case r.Slots < 0 || r.Slots > maxSlots:
		return fmt.Errorf("%w: %d slots", ErrRecord, r.Slots)
	case len(r.BoxKey) != 0 && len(r.BoxKey) != boxKeyBytes:
		return fmt.Errorf("%w: box key of %d bytes", ErrRecord, len(r.BoxKey))
	case len(r.Addresses) > grid.MaxAddresses:
		return fmt.Errorf("%w: %d addresses, at most %d", ErrRecord, len(r.Addresses), grid.MaxAddresses)
	}
	for _, address := range r.Addresses {
		if err := CheckAddress(address); err != nil {
			return fmt.Errorf("%w: %w", ErrRecord, err)
		}
	}
	return nil
}

// CheckAddress accepts HOST:PORT with a numeric port that can be dialled.
func CheckAddress(address string) error {
	if len(address) > grid.MaxAddressLen {
		return fmt.Errorf("address of %d bytes, at most %d", len(address), grid.MaxAddressLen)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if err != nil || n == 0 || host == "" || strings.ContainsFunc(host, odd) {
		return fmt.Errorf("address %q: want HOST:PORT", address)
	}
	return nil
}
