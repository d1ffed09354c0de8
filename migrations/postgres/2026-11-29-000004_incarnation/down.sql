DROP TABLE incarnation;
