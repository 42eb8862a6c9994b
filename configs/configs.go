// Package configs embeds the documented sample configuration, which a test
// holds equal to the code's defaults.
package configs

import _ "embed"

// Sample is the documented configuration file with every key at its default.
//
//go:embed gotong.yaml
var Sample []byte
