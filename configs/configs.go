// Package configs embeds the documented sample configuration, which a test
// holds equal to the code's defaults, and the unit of the service.
package configs

import _ "embed"

// Sample is the documented configuration file with every key at its default.
//
//go:embed gotong.yaml
var Sample []byte

// Unit is a systemd unit for a peer at UnitProgram.
//
//go:embed gotong.service
var Unit string

// UnitProgram is how Unit names the program.
const UnitProgram = "%h/bin/gotong"
