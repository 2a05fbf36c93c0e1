// SPDX-License-Identifier: MIT

package pyapi

// What the tests of this package see beyond its public names.
const (
	CodeClosed        = codeClosed
	CodeTerminated    = codeTerminated
	CodeTooLarge      = codeTooLarge
	CodeUnknownHandle = codeUnknownHandle
	CodeBadArgument   = codeBadArgument
	CodeSystem        = codeSystem
)

// CodeOf is the table of errors.
var CodeOf = codeOf
