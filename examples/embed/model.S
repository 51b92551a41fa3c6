// The files of a trained model, as parts of the program. -Wa,-I names the folder that has them.
    .section .rodata
    .global config, config_end, weights, weights_end, tokenizer, tokenizer_end, roles, roles_end
    .global generation, generation_end
config:
    .incbin "config.json"
config_end:
weights:
    .incbin "model.safetensors"
weights_end:
tokenizer:
    .incbin "tokenizer.json"
tokenizer_end:
roles:
    .incbin "tokenizer_config.json"
roles_end:
generation:
    .incbin "generation_config.json"
generation_end:
    .section .note.GNU-stack, "", %progbits
